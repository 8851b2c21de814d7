"""Speech recognition: waveform to words with times and confidences, by one of two engines."""
