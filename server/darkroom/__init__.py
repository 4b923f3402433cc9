"""Darkroom: an image generation server for the local network."""

__version__ = "0.1.0"
