"""A network on a device: export, parity, latency."""
