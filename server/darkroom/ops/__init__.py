"""Starting, watching, examining and announcing the server."""
