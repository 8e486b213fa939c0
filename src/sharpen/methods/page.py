"""The reference page of the methods, ``docs/methods.md``, as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from pydantic import BaseModel

from sharpen.describe import about, markdown_table, settings_table
from sharpen.methods import METHODS
from sharpen.methods.describe import PEERS, by_owner, called, differences, parent, row, settings
from sharpen.methods.method import Method

LEGEND = (
    ("ρ", "π/π_old of a token, 1 while the two are the same; linear beyond e²⁰, as is π_ref/π"),
    ("s", "the same ratio of a whole completion, to the power of 1/|o|"),
    ("A, Â", "the advantage of a token; of a completion relative to its group"),
    ("unclipped", "0 where clipping stops the gradient, else 1"),
    ("|o|", "the completion's length in tokens"),
    ("sg", "stop-gradient"),
)
"""The symbols of the formulas."""

_BEGINNING = """\
# Methods

Every method is one sentence: source × reward × advantage × loss. The gradient coefficient is the factor of
∇ log π of each token, before averaging over lengths (DeepSeekMath's unified view). Objectives are maximised.

This page is generated from the code by `sharpen methods --markdown`. `sharpen methods NAME` shows one method, and
`--json` prints the same for programs. In a recipe:

    method:
      name: grpo
      group_size: 16
      beta: 0.04
      kl: {estimator: k2}

Under “Other libraries” stands where a method differs from those of
PEERS.
""".replace("PEERS", PEERS)


def methods_page() -> str:
    """The unified table, a section for each method, and one for each set of shared settings."""
    parts = [_BEGINNING, _unified(), markdown_table(("symbol", "meaning"), LEGEND)]
    parts += [_section(method) for method in METHODS.values()]
    owners = [owner for method in METHODS.values() for owner in by_owner(settings(method))]
    parts += [_shared(owner) for owner in dict.fromkeys(owners) if owner not in METHODS.values()]
    return "\n".join(parts)


def _unified() -> str:
    rows = [row(method) for method in METHODS.values()]
    heads = ["method", *(key.replace("_", " ") for key in rows[0] if key != "name")]
    return markdown_table(heads, ([_link(r.pop("name")), *map(_with_links, r.values())] for r in rows))


def _section(method: type[Method]) -> str:
    above, others = parent(method), by_owner(settings(method))
    own = others.pop(method, [])
    origin = f"{_with_links(method.unified_view.paper)}.{f' A form of {_link(above.name)}.' if above else ''}"
    parts = [f"## `{method.name}`", textwrap.indent(about(method), "    "), origin]
    if own:
        parts.append(settings_table(own))
    if others:
        shared = ", ".join(_link(called(owner)) for owner in others)
        parts.append(f"{'Also the' if own else 'The'} settings of {shared}.")
    if found := differences(method):
        parts.append(_differences(found))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _shared(owner: type[BaseModel]) -> str:
    # A method that overrides some of them lists these as its own; one that overrides none has them all.
    found = max((by_owner(settings(method)).get(owner, []) for method in METHODS.values()), key=len)
    users = ", ".join(_link(method.name) for method in METHODS.values() if owner in by_owner(settings(method)))
    first = about(owner).partition("\n")[0]
    head = called(owner) if issubclass(owner, Method) else f"`{called(owner)}`"
    said = f"\n{_differences(differences(owner))}\n" if differences(owner) else ""
    return f"## {head[0].upper()}{head[1:]}\n\n{first} In {users}.\n\n{settings_table(found)}{said}"


def _differences(found: Sequence[str]) -> str:
    return "\n".join(["Other libraries:\n", *(f"- {line}" for line in found)])


def _link(name: str) -> str:
    return f"[`{name}`](#{name})" if name in METHODS else f"[{name}](#{name.replace(' ', '-')})"


def _with_links(text: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
