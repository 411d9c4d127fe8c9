"""Models: where they come from, whether their files are safe, how they are opened, kept in memory and asked."""
