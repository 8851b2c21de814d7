"""Training M heads at once."""
