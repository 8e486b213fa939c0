"""Extraction of the program from a completion."""

from __future__ import annotations

import re
from typing import Literal

from sharpen.rewards.text.extraction import in_tags

CodeSource = Literal["fence", "tags", "whole"]

# Possessive quantifiers throughout: backtracking between the parts would take quadratic time.
_OPENING = re.compile(r"([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^`\r\n]*+)")
_PYTHON = ("python", "python3", "py")


def extract_code(completion: str, source: CodeSource = "fence", tag: str = "answer") -> str | None:
    """The program in ``completion``, or None if there is none.

    - ``fence``: the last block fenced by ```` ``` ```` or ``~~~`` and labelled ``python``, ``python3`` or ``py``; if no
      block is, the last one without a label. An unclosed block means that the completion was truncated: the result is
      None, and earlier blocks are not used instead.
    - ``tags``: the content of ``<tag>…</tag>``; None if there is more than one opening or closing tag. If the content
      has fenced blocks, the rule of ``fence`` applies to it.
    - ``whole``: the whole completion.

    Blank text and text that UTF-8 cannot encode (lone surrogates) is not a program.
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
    """The last Python block among the fenced blocks of ``text``, which are delimited as in CommonMark."""
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
    """``line`` without the indentation of its fence, as for a block inside a list."""
    return line.lstrip(" \t") if line[:width].strip() else line[width:]
