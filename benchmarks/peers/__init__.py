"""Darkroom beside other programs that draw with the same weights."""
