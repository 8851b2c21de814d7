"""How many unlabelled clips of a speaker adaptation needs."""
