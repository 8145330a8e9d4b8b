"""Suggestions made ahead of time by a controller in its own process."""
