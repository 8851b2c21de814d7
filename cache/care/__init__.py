"""Looking after stores: what is there, what is damaged, what is no longer needed."""
