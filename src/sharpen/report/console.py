"""Consoles that obey nothing of what a model, a reward or a data set wrote."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from sharpen.system.printable import printable


def safe_console(**settings: Any) -> Console:
    """A `rich.console.Console` that shows what a model, a reward or a data set wrote, and obeys none of it.

    Texts are no markup: ``[bold]`` is shown as it is. What is not written by a print, such as the text of a bar or of a
    status, has to be `printable` by itself.
    """
    # No emoji: rich loads their table on first use, and a Ctrl-C during that import has a message to print.
    made = Console(markup=False, emoji=False, **settings)
    made.push_render_hook(_PrintableHook())
    return made


def printable_text(text: str) -> Text:
    """Text without markup, `printable` by itself: for a status, a bar, a title or a cell."""
    return Text(printable(text))


class _PrintableHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [one if isinstance(one, Control) else _Printable(one) for one in renderables]


class _Printable:
    """A renderable whose texts are `printable`; controls, which rich itself makes, are kept."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)


def complain(message: str) -> None:
    """Print a message in red to standard error."""
    safe_console(stderr=True, soft_wrap=True).print(Text(message, style="red"))
