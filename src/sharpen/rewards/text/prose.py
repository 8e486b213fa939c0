"""Strips everything but prose from a text: code, formulas, LaTeX commands, tags and URLs."""

from __future__ import annotations

import re

_ALONE = re.compile(r"```.*|`[^`\n]*+`|\$[^$\n]*+\$|\\[a-zA-Z]++|</?\w++>|https?://\S++", re.DOTALL)
_FOREIGN = re.compile(rf"(?P<opening>```|\$\$|\\\[|\\\(|\\begin\{{(?P<name>\w++\*?)\}})|{_ALONE.pattern}", re.DOTALL)
_CLOSINGS = {"```": "```", "$$": "$$", r"\[": r"\]", r"\(": r"\)"}
_END = re.compile(r"\\end\{\w++\*?\}")


def prose(text: str) -> str:
    """``text`` with a line break in place of each piece that is not prose. Takes linear time."""
    # Last position of each closing delimiter: searching for a missing one would rescan the text for every opening.
    last = {closing: text.rfind(closing) for closing in _CLOSINGS.values()}
    last |= {found[0]: found.start() for found in _END.finditer(text)}
    kept: list[str] = []
    kept_to = position = 0
    while found := _FOREIGN.search(text, position):
        start, position = found.span()
        if found["opening"]:
            closing = _CLOSINGS.get(found["opening"], rf"\end{{{found['name']}}}")
            if last.get(closing, -1) >= position:
                position = text.index(closing, position) + len(closing)
            elif alone := _ALONE.match(text, start):
                position = alone.end()
            else:
                continue
        kept.append(text[kept_to:start])
        kept_to = position
    return "\n".join((*kept, text[kept_to:]))
