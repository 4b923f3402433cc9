"""Several boxes with one queue: how a box joins, and how Ray starts the workers on it.

Nothing here is imported where one box serves alone. Only `manager.py` imports `ray`.
"""
