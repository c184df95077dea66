"""Cases decoded once: reading them, and keeping what was read."""
