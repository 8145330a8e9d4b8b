"""Search engines by name."""
