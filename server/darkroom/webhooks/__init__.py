"""Telling others that a job has ended: the one place where this server calls out."""
