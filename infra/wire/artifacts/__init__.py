"""W&B's operations on artifacts."""
