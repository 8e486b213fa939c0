"""Data: rows → prompts and demonstrations; the order they are drawn in; tasks by name."""

from sharpen.data.cursor import Cursor
from sharpen.data.rows import Rows, read_rows

__all__ = ["Cursor", "Rows", "read_rows"]
