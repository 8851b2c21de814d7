"""What a machine is and whether TriFuse will run on it: looked at, judged, and told with the remedy."""
