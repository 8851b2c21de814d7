"""What conditions do to the frames."""
