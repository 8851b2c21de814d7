"""Feature to number: fusion heads, training, fine-tuning, metrics, statistics, reports."""
