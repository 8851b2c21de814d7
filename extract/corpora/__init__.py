"""Corpora: metadata of a folder, RAVDESS by download, the synthetic one of the demo."""
