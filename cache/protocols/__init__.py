"""Which clips train, validate and test, and what that leaks."""
