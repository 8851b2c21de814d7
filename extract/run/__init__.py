"""Stage one at work: what there is to compute, and one rank computing it."""
