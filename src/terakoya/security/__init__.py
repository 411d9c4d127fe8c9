"""Who may call: Host and Origin checks, API keys and sessions, limits on what is sent. Knows nothing of FastAPI."""
