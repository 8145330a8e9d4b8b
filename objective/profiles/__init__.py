"""The search space and what was measured of it before the first trial."""
