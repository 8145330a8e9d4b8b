"""A network made smaller: coupled layer groups, pruning, quantisation."""
