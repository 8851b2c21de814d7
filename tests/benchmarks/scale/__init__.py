"""Stage one and two of a corpus of any size: what is measured is the bookkeeping, for nothing is decoded or encoded."""
