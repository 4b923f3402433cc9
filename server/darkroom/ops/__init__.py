"""Operation: starting, supervising, checking, measuring and announcing the server."""
