"""Terakoya: teach a language model your team's work, keep what it knew, ask your own documents."""

__version__ = "0.1.0"
