"""One HTML file about runs: everything that was measured, and clips to look at and listen to."""
