"""Room: what `prunefleet doctor` looks at on a host and on the way to its server; nothing here needs torch."""
