"""Keeping `wandb agent` processes alive."""
