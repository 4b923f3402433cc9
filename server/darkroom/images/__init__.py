"""Bytes to pixels and back, without torch."""
