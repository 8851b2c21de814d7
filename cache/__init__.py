"""What is kept: clips, splits, conditions, media, features, tables. Never imports torch."""
