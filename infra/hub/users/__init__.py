"""Who may do what: users, keys, projects, hosts that join, limits."""
