"""The logger and what is known of the machine's devices; nothing else moves in."""
