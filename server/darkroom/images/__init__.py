"""Decoding, encoding and preparing pictures, without torch."""
