"""What is different in a Jupyter notebook: a display that is redrawn in place, and libraries that ask for widgets."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    # Colab's shell is a subclass; IPython in a terminal has no kernel.
    return shell is not None and hasattr(shell, "kernel")


def import_tqdm() -> None:
    """Import tqdm, which warns in a notebook without ipywidgets; the libraries that import it need no widgets here."""
    if not in_notebook():
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*IProgress not found")
        import tqdm.auto  # noqa: F401


class Display:
    """One output of a cell, replaced by each ``show``. Only in a notebook, where IPython is there."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, html: str, text: str) -> None:
        """Show ``html``; ``text`` is for what cannot render it."""
        from IPython.display import display

        data = {"text/html": html, "text/plain": text}
        if self._handle is None:
            show: Any = display
            self._handle = show(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
