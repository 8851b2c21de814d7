"""Every configuration of a grid, every fold, every seed."""
