"""What a run may say, and how a command starts. Never imports torch."""
