"""What conditions do to the waveform."""
