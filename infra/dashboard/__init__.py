"""Pages that show a sweep and a run as they go."""
