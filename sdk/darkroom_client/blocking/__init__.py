"""Clients, jobs and pictures for programs without `async`.

Written by `sdk/write_blocking.py` from `asynchronous/`: change that, and run it. Only `aside.py`
and `display.py` are written by hand.
"""
