"""The way of every channel through a network: what writes it, what reads it, and what goes with it."""
