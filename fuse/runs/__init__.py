"""A run: what it reads, what its folder holds, and how its head is used again."""
