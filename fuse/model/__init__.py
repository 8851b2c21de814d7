"""What is trained: a standardiser, a mix of layers and a fusion head."""
