"""What to try next: pure, seeded functions of stored trials."""
