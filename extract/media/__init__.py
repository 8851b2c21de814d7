"""Media files to samples and pixels, and the damage that decoders pass over."""
