"""All background work: the queue, the supervisor of worker processes, recovery after a restart."""
