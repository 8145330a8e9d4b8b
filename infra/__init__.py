"""Decides what to try next, remembers, shows, keeps agents alive."""
