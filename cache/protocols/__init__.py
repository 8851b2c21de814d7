"""Which clips train, validate and test, and the audit of what that leaks."""
