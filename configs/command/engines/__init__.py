"""Ranks as tasks of datatrove's executors: on this machine, on a Slurm cluster, on a Ray cluster."""
