"""The models, add-ons and schedulers that requests can name, read without torch."""
