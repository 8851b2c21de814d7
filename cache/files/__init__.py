"""Files that others can trust: whole or not there, one writer at a time."""
