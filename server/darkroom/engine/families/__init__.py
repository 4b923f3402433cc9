"""Model families: how each prepares a sample, predicts its noise and decodes it."""
