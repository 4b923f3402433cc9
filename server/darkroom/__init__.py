"""Darkroom: one box with a GPU develops images for the whole local network."""

__version__ = "0.1.0"
