"""A draft → YAML with comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from sharpen.scaffold.draft import Draft, Note, Setting

COMMENT_COLUMN = 34
WIDTH = 100


def to_yaml(draft: Draft) -> str:
    """The text of a recipe."""
    lines = [f"# {line}".rstrip() for line in draft.header]
    opened: tuple[str, ...] = ()
    for entry in draft.entries:
        path = tuple(entry.name.split(".")) if isinstance(entry, Setting) else (*_parts(entry.inside), "")
        sections = path[:-1]
        shared = next((i for i, (a, b) in enumerate(zip(sections, opened, strict=False)) if a != b), None)
        common = min(len(sections), len(opened)) if shared is None else shared
        lines += [f"{'  ' * depth}{sections[depth]}:" for depth in range(common, len(sections))]
        opened = sections
        indent = "  " * len(sections)
        lines += _note(entry, indent) if isinstance(entry, Note) else _setting(entry, path[-1], indent)
    return "\n".join(lines) + "\n"


def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")) if name else ()


def _note(note: Note, indent: str) -> Iterator[str]:
    lines = note.text.splitlines() if note.verbatim else textwrap.wrap(note.text, WIDTH - len(indent) - 2)
    yield from (f"{indent}# {line}".rstrip() for line in lines)


def _setting(setting: Setting, key: str, indent: str) -> Iterator[str]:
    line = f"{indent}{key}: {_literal(setting.value)}"
    commented = f"{line:<{COMMENT_COLUMN}} # {setting.why}"
    if setting.why and len(commented) > WIDTH + 10:
        yield from _note(Note(setting.why), indent)
    yield commented if setting.why and len(commented) <= WIDTH + 10 else line


def _literal(value: Any) -> str:
    if isinstance(value, float):
        return re.sub(r"e-0(\d)", r"e-\1", yaml.safe_dump(value).split("\n")[0])
    if isinstance(value, str):
        # OmegaConf would look for a setting of that name.
        value = value.replace("${", "\\${")
    # OmegaConf reads 1e3 as a number, PyYAML does not.
    style = "'" if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", value, re.IGNORECASE) else None
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
