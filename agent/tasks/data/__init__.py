"""Pictures, downloads, and how data is divided."""
