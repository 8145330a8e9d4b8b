"""Trials forked from a process that has torch loaded."""
