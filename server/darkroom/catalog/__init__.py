"""What may be asked for: models and schedulers, read without torch, so that web can validate."""
