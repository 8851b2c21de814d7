"""Studies of a trained run: each answers one question, in a table and pictures of its own."""
