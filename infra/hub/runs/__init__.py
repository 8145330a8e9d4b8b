"""Runs, sweeps and agents: their states, and what changes them."""
