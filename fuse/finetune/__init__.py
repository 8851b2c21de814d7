"""Encoders and head trained together, with DistributedDataParallel."""
