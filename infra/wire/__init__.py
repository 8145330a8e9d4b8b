"""W&B's names on the wire, turned into calls of the hub."""
