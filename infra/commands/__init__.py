"""One file for each word after `prunefleet`: its help, its options, and what runs it."""
