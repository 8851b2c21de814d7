"""One frozen dataclass per entry point: its keys, their defaults and what is allowed."""
