"""A trained run put to use: a clip, a folder or a table of clips in, probabilities and their reasons out."""
