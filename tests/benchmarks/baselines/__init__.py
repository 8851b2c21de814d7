"""What the benchmarks compare with: the usual loop, single heads, encoders of true size with random weights."""
