"""Other people's programs, as they are installed, against the real server."""
