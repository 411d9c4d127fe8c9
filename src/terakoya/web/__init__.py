"""The server as people meet it: the application, its one error handler, its guard and its pages."""
