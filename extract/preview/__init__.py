"""One clip under every condition, to look at and to listen to."""
