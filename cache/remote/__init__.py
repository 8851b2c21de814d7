"""Features at an object store: copied there and back, whole or not at all."""
