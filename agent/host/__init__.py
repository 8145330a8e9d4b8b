"""What a process needs of its host: cached files, failures, progress, stopping."""
