"""Python source as a syntax tree, by one thread at a time."""

from threading import Lock

PARSER_LOCK = Lock()
"""Held during `ast.parse`. Python 3.11 counts the depth of the tree for all threads together: where the garbage
collector lets another thread parse in the middle, both fail with a SystemError."""
