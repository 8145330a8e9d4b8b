"""The answer of a sweep: the winner, and the controls that it must beat."""
