"""Clips as encoders take them: read from the media store, corrupted, cut and batched."""
