"""The queue: what was asked, whose turn it is, what came of it. Imports neither torch nor Flask."""
