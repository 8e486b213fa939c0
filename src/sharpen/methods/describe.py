"""Descriptions of the methods, derived from their classes, for the command line, for programs and for the docs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sharpen.methods import METHODS
from sharpen.methods.method import Method
from sharpen.settings import Settings

_TYPES = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text", "null": "null"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


PEERS = "TRL 1.16.0, verl 0.9.1, OpenRLHF 0.11.2"
"""The releases that `Method.differences` speaks of."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a method.

    ``schema`` is the JSON Schema of its values. ``owner`` is the class that sets the default, and ``instead_of`` the
    default that it overrides, or ``default`` itself if it overrides none.
    """

    name: str
    schema: Mapping[str, Any]
    default: Any
    instead_of: Any
    meaning: str
    owner: type[Settings]

    @property
    def values(self) -> str:
        """The values that may be given, in words."""
        return " or ".join(_values(part) for part in self.schema.get("anyOf", [self.schema]))

    @property
    def changed(self) -> bool:
        return bool(self.default != self.instead_of)

    def to_json(self) -> dict[str, Any]:
        described = {"name": self.name, **self.schema, "default": self.default, "meaning": self.meaning}
        return {**described, "instead_of": self.instead_of} if self.changed else described


def objective(method: type[Settings]) -> str:
    """The docstring of the class."""
    return inspect.cleandoc(method.__doc__ or "")


def differences(owner: type[Settings]) -> tuple[str, ...]:
    """Where a class, apart from those that it derives from, differs from other libraries."""
    return tuple(vars(owner).get("differences", ()))


def all_differences(method: type[Method]) -> dict[type[Settings], tuple[str, ...]]:
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
    return tuple(sorted(_settings(method), key=lambda s: order.index(s.owner) if s.owner in order else len(order)))


def by_owner(found: Iterable[Setting]) -> dict[type[Settings], list[Setting]]:
    """The settings by owner, in the given order."""
    parts: dict[type[Settings], list[Setting]] = {}
    for setting in found:
        parts.setdefault(setting.owner, []).append(setting)
    return parts


def called(owner: type[Settings]) -> str:
    """``grpo`` for a method, ``every group method`` for what methods share, ``kl`` for a section of settings."""
    if issubclass(owner, Method) and owner in METHODS.values():
        return owner.name
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner.__name__).lower()
    return f"every {words}" if issubclass(owner, Method) else words


def as_text(value: Any) -> str:
    """A value as written in a recipe."""
    return value if isinstance(value, str) else json.dumps(value)


def row(method: type[Method]) -> dict[str, str]:
    """The method's row of the unified table."""
    return {"name": method.name, **asdict(method.unified_view)}


def to_json(method: type[Method]) -> dict[str, Any]:
    """The full description of a method, as JSON."""
    above = parent(method)
    return {
        **row(method),
        "objective": objective(method),
        "parent": above and above.name,
        "settings": [setting.to_json() for setting in settings(method)],
        "differences": {called(owner): found for owner, found in all_differences(method).items()},
    }


def _settings(method: type[Method]) -> Iterator[Setting]:
    schemas = method.model_json_schema()["properties"]
    for name, field in method.model_fields.items():
        owner, above = _declared(method, name)
        usual = above.model_fields[name].default
        if not isinstance(field.default, Settings):
            yield Setting(name, _bare(schemas[name]), field.default, usual, _meaning(field.description), owner)
            continue
        section = type(field.default)
        inner_schemas = section.model_json_schema()["properties"]
        for inner, inner_field in section.model_fields.items():
            default, instead_of = getattr(field.default, inner), getattr(usual, inner)
            yield Setting(
                f"{name}.{inner}",
                _bare(inner_schemas[inner]),
                default,
                instead_of,
                _meaning(inner_field.description),
                owner if default != instead_of else section,
            )


def _declared(method: type[Method], name: str) -> tuple[type[Method], type[Method]]:
    """The class that sets a field's default, and the one whose default it overrides, or the same twice."""
    classes = [c for c in method.__mro__ if issubclass(c, Method) and name in inspect.get_annotations(c)]
    return classes[0], classes[min(1, len(classes) - 1)]


def _meaning(description: str | None) -> str:
    return " ".join((description or "").split())


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "description", "default")}


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(as_text, schema["enum"]))
    bounds = " and ".join(f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema)
    return f"{_TYPES[schema['type']]} {bounds}".strip()
