"""Lock for parsing Python source in one thread at a time."""

from threading import Lock

PARSER_LOCK = Lock()
"""Hold this during `ast.parse`. Python 3.11 shares one tree-depth counter between threads: if the garbage collector
lets another thread parse in the middle, both fail with a SystemError."""
