"""Feature to number: fusion heads, training, fine-tuning, scores, tables."""
