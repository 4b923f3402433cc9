"""Clients, jobs and pictures for `async` programs, and what those for others are written from.

`sdk/write_blocking.py` writes `blocking/` from this folder; only `aside.py` and `display.py` are
written by hand in both.
"""
