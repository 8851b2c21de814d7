"""What is kept: clips, protocols, conditions, media, features. Never imports torch."""
