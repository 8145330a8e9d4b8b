"""The profile: which points are measured, measuring them, and the search space of a sweep file."""
