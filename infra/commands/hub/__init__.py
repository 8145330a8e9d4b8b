"""`prunefleet hub`, and one file for each word after it."""
