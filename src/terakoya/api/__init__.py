"""The HTTP and WebSocket interface, one router a noun. Thin: it translates, the services decide."""
