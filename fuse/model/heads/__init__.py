"""Fusion heads: from the rows of all modalities to logits, M heads at once."""
