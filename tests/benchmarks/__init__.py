"""What is measured and not asserted: ratios, taken side by side in one run (`make bench`)."""
