"""Other people's APIs: their words into ours, then the same code as for our own."""
