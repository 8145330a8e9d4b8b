"""How a host joins a sweep, keeps its agents, and leaves."""
