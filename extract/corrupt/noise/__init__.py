"""Recorded noise: babble of the corpus, and files of a folder."""
