"""Documents: cut into passages, indexed, found, and answered from with citations. Never sees ``training``."""
