"""Features in from others and out to others."""
