"""The parts of one training loop: batching, fit, schedule, checkpoints, and the loop itself."""
