"""The parts of one training loop: batching, fit, schedule, checkpoints, the compute probe, and the loop itself."""
