"""From the bytes of a request to one with nothing left open."""
