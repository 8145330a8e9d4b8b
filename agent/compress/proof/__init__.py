"""Experiments on the dense and the pruned network that decide whether a group is what the trace says."""
