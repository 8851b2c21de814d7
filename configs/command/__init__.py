"""How a command starts, shows that it works, and stops."""
