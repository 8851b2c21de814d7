"""`make app`: a page on this machine where a run is tried on clips, one at a time."""
