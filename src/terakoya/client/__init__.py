"""The Python client: ``from terakoya import Client``."""
