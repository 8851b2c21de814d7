"""Clip to feature: decode, corrupt, transcribe, encode."""
