"""The clips of a corpus and what their names and metadata say."""
