"""Data: rows → prompts and completions; the order in which they are used; tasks by name."""

from sharpen.data.cursor import Cursor
from sharpen.data.rows import Rows, read_rows

__all__ = ["Cursor", "Rows", "read_rows"]
