"""Backup, checks, retention and administration of a hub."""
