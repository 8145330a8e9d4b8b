"""Agents on this machine and lines that add another."""
