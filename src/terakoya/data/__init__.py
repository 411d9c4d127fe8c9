"""Training examples: how uploaded rows become conversations, splits and tokens."""
