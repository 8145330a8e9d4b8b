"""Stopping trials that are not worth finishing."""
