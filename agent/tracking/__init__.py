"""Runs on a W&B server: what a process logs, what it reads, and how it asks again."""
