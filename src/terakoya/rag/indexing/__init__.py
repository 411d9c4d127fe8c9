"""From a file to passages that can be indexed."""
