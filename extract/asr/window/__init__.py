"""One window of a clip to the transformers engine: its spectrogram, what was written of it, and the times of words."""
