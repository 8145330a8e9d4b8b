"""`prunefleet up`: a whole sweep on this machine."""
