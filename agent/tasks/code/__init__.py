"""The code of a user's own task: which files it is, and how it travels."""
