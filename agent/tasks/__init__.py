"""Networks and data: what is pruned, trained and evaluated."""
