"""The database and the files under it."""
