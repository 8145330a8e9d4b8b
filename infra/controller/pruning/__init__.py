"""The search for pruning ratios: the channel grid, candidates, and which to try next."""
