"""The command line: one module a noun, the same nouns as the API. Heavy imports happen when a command is called."""
