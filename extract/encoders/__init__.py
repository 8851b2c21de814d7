"""Frozen pretrained models: where they are, how they are loaded, what they are fed, what they give."""
