"""What a run may say: one frozen dataclass per entry point, the YAML loader, the YAML files."""
