"""Where in a completion its program stands."""

from __future__ import annotations

import re
from typing import Literal

from sharpen.rewards.text.extraction import in_tags

CodeSource = Literal["fence", "tags", "whole"]

# Possessive throughout: what one part gives back, the next one would take, in as many ways as there are characters.
_OPENING = re.compile(r"([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^`\r\n]*+)")
_PYTHON = ("python", "python3", "py")


def extract_code(completion: str, source: CodeSource = "fence", tag: str = "answer") -> str | None:
    """The program in ``completion``, or None if it gives none.

    - ``fence``: the last block fenced by ```` ``` ```` or ``~~~`` and labelled ``python``, ``python3`` or ``py``; where
      no block is, the last one without a label. A block that is opened and not closed means that the completion was
      cut off: it is no program, and the blocks before it are not taken instead.
    - ``tags``: what stands in ``<tag>…</tag>``; more than one opening or closing tag is no program. Where that holds
      fenced blocks, the rule of ``fence`` applies within.
    - ``whole``: all of it.

    White space alone is no program, and neither is text that UTF-8 cannot express (half of a surrogate pair).
    """
    if source == "whole":
        found: str | None = completion
    elif source == "tags":
        found = in_tags(completion, tag)
        if found is not None and any(_OPENING.fullmatch(line.rstrip()) for line in found.split("\n")):
            found = _last_block(found)
    else:
        found = _last_block(completion)
    if found is None or not found.strip():
        return None
    try:
        found.encode()
    except UnicodeEncodeError:
        return None
    return found


def as_completion(code: str, source: CodeSource = "fence", tag: str = "answer") -> str:
    """A completion in which `extract_code` finds ``code``."""
    if source == "whole":
        return code
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    block = f"{fence}python\n{code.rstrip()}\n{fence}"
    return f"<{tag}>\n{block}\n</{tag}>" if source == "tags" else block


def _last_block(text: str) -> str | None:
    """The last block of Python among the fenced blocks of ``text``, which begin and end as in CommonMark."""
    labelled: str | None = None
    plain: str | None = None
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        if opening is None:
            opening = _OPENING.fullmatch(line.rstrip())
            lines = []
        elif _closes(line, opening[2]):
            label = opening[3].split(maxsplit=1)
            if not label:
                plain = "\n".join(lines)
            elif label[0].lower() in _PYTHON:
                labelled = "\n".join(lines)
            opening = None
        else:
            lines.append(_without_indent(line, len(opening[1])))
    if opening is not None:
        return None
    return plain if labelled is None else labelled


def _closes(line: str, fence: str) -> bool:
    line = line.strip()
    return len(line) >= len(fence) and not line.strip(fence[0])


def _without_indent(line: str, width: int) -> str:
    """``line`` without the indentation of its fence, which a block within a list has."""
    return line.lstrip(" \t") if line[:width].strip() else line[width:]
