"""Entry points of the processes besides the web server, and nothing else."""
