"""Artifacts and files of runs."""
