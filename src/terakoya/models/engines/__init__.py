"""What writes answers in the model server: one port, an implementation a file."""
