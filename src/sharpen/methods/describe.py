"""Descriptions of the methods, derived from their classes, for the command line, for programs and for the docs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from sharpen.describe import Setting, about, flattened
from sharpen.methods import METHODS
from sharpen.methods.method import Method

PEERS = "TRL 1.16.0, verl 0.9.1, OpenRLHF 0.11.2"
"""The releases that `Method.differences` speaks of."""


def differences(owner: type[BaseModel]) -> tuple[str, ...]:
    """Where a class, apart from those that it derives from, differs from other libraries."""
    return tuple(vars(owner).get("differences", ()))


def all_differences(method: type[Method]) -> dict[type[BaseModel], tuple[str, ...]]:
    """The differences of a method, of what it shares with others and of its sections, by owner."""
    owners = dict.fromkeys([*(c for c in method.__mro__ if issubclass(c, Method)), *by_owner(settings(method))])
    return {owner: found for owner in owners if (found := differences(owner))}


def parent(method: type[Method]) -> type[Method] | None:
    """The method that this one is a variant of, if any."""
    return next((base for base in method.__mro__[1:] if base in METHODS.values()), None)


def settings(method: type[Method]) -> tuple[Setting, ...]:
    """Every setting of a method, its own first; settings of a section are named by their path."""
    # The earlier an owner comes in the method resolution order, the closer it is to the method; sections come last.
    order = [*method.__mro__]
    return tuple(sorted(flattened(method), key=lambda s: order.index(s.owner) if s.owner in order else len(order)))


def by_owner(found: Iterable[Setting]) -> dict[type[BaseModel], list[Setting]]:
    """The settings by owner, in the given order."""
    parts: dict[type[BaseModel], list[Setting]] = {}
    for setting in found:
        parts.setdefault(setting.owner, []).append(setting)
    return parts


def called(owner: type[BaseModel]) -> str:
    """``grpo`` for a method, ``every group method`` for what methods share, ``kl`` for a section of settings."""
    if issubclass(owner, Method) and owner in METHODS.values():
        return owner.name
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner.__name__).lower()
    return f"every {words}" if issubclass(owner, Method) else words


def row(method: type[Method]) -> dict[str, str]:
    """The method's row of the unified table."""
    return {"name": method.name, **asdict(method.unified_view)}


def to_json(method: type[Method]) -> dict[str, Any]:
    """The full description of a method, as JSON."""
    above = parent(method)
    return {
        **row(method),
        "objective": about(method),
        "parent": above and above.name,
        "settings": [setting.to_json() for setting in settings(method)],
        "differences": {called(owner): found for owner, found in all_differences(method).items()},
    }
