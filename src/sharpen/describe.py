"""Descriptions of settings, derived from their classes, for the command line, for programs, editors and the docs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from sharpen.settings import Effect, Settings, default_of, section_of

_TYPES = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text", "null": "null"}
_MANY = {**{name: f"{noun}s" for name, noun in _TYPES.items()}, "boolean": "booleans", "object": "mappings"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_BAR = r"\|"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a class.

    ``schema`` is the JSON Schema of its values. ``owner`` is the class that sets its default or when it has an effect,
    and ``instead_of`` the default that it overrides, or ``default`` itself if it overrides none; both are
    `PydanticUndefined` if it is required. ``only`` says when it has an effect, if that depends on others. ``section``
    is the class of a section of settings.
    """

    name: str
    schema: Mapping[str, Any]
    default: Any
    instead_of: Any
    meaning: str
    owner: type[BaseModel]
    only: tuple[str, ...] = ()
    section: type[BaseModel] | None = None

    @property
    def values(self) -> str:
        """The values that may be given, in words."""
        if self.section is not None and not self.schema.get("anyOf"):
            return "sections by name" if "additionalProperties" in self.schema else "a section"
        return " or ".join(_values(part) for part in self.schema.get("anyOf", [self.schema]))

    @property
    def text(self) -> str:
        """What it means, and when it has an effect."""
        return f"{self.meaning} {only_text(self.only)}".strip()

    @property
    def required(self) -> bool:
        return self.default is PydanticUndefined

    @property
    def changed(self) -> bool:
        return bool(self.default != self.instead_of)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.schema,
            **({"required": True} if self.required else {"default": plain(self.default)}),
            "meaning": self.meaning,
            **({"only": list(self.only)} if self.only else {}),
            **({"instead_of": plain(self.instead_of)} if self.changed else {}),
        }


def described(kind: type[BaseModel], *, outer: Sequence[Effect] = (), within: str = "") -> tuple[Setting, ...]:
    """The settings of a class in order, a section as one of them.

    ``outer`` are the effects that another class declares of these, by their path ``within`` it.
    """
    schema = kind.model_json_schema()
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    own = kind.all_effects() if issubclass(kind, Settings) else ()
    effects = [*(Effect(f"{within}{e.setting}", e.only, e.when) for e in own), *outer]
    found = []
    for name, field in kind.model_fields.items():
        written = field.alias or name
        owner, above = _declared(kind, name)
        section = section_of(field.annotation)
        meaning = _words(field.description) or (_about(section) if section is not None else "")
        found.append(
            Setting(
                written,
                with_null(_bare(properties[written], definitions), field.default),
                default_of(field),
                default_of(above.model_fields[name]),
                meaning,
                owner,
                tuple(dict.fromkeys(e.only for e in effects if e.setting == f"{within}{name}")),
                section,
            )
        )
    return tuple(found)


def flattened(kind: type[BaseModel]) -> Iterator[Setting]:
    """The settings of a class, those of its sections by their path: a section's have the defaults that it gets here."""
    effects = kind.all_effects() if issubclass(kind, Settings) else ()
    for setting in described(kind):
        if setting.section is None:
            yield setting
            continue
        optional = not isinstance(setting.default, BaseModel)
        if optional:
            yield setting
        for inner in described(setting.section, outer=effects, within=f"{setting.name}."):
            default = inner.default if optional else getattr(setting.default, inner.name)
            instead_of = inner.instead_of if optional else getattr(setting.instead_of, inner.name)
            yield Setting(
                f"{setting.name}.{inner.name}",
                inner.schema,
                default,
                instead_of,
                inner.meaning,
                setting.owner if default != instead_of else setting.section,
                inner.only,
                inner.section,
            )


def only_text(only: Sequence[str]) -> str:
    """When a setting has an effect, as a sentence; empty if always."""
    return f"Only {', and '.join(only)}." if only else ""


def settings_table(found: Iterable[Setting]) -> str:
    """The settings as a table in Markdown."""
    rows = ((f"`{s.name}`", s.values, default_text(s), s.text) for s in found)
    return markdown_table(("setting", "values", "default", "meaning"), rows)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', _BAR) for cell in row)} |" for row in rows]
    return "".join(f"{line}\n" for line in lines)


def as_text(value: Any) -> str:
    """A value as written in a recipe."""
    plain_value = plain(value)
    return plain_value if isinstance(plain_value, str) else json.dumps(plain_value)


def default_text(setting: Setting) -> str:
    """The default and, if it overrides another, that one."""
    if setting.required:
        return "required"
    if setting.section is not None and isinstance(setting.default, BaseModel):
        return "{}"
    text = as_text(setting.default)
    return f"{text} instead of {as_text(setting.instead_of)}" if setting.changed else text


def plain(value: Any) -> Any:
    """A default as plain JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def about(kind: type) -> str:
    """The docstring of a class."""
    return inspect.cleandoc(kind.__doc__ or "")


def with_null(schema: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """The schema of a setting, which may be null if that is its default, whatever its type says."""
    if default is not None or "type" not in schema:
        return dict(schema)
    beside = {key: schema[key] for key in ("description", "default") if key in schema}
    return {"anyOf": [{k: v for k, v in schema.items() if k not in beside}, {"type": "null"}], **beside}


def paragraphs(text: str) -> str:
    """A text with each of its paragraphs on one line."""
    return "\n\n".join(_words(paragraph) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _about(section: type[BaseModel]) -> str:
    return _words(about(section).partition("\n\n")[0])


def _words(text: str | None) -> str:
    return " ".join((text or "").split())


def _declared(kind: type[BaseModel], name: str) -> tuple[type[BaseModel], type[BaseModel]]:
    """The class that sets a field's default or effect, and the one whose default it overrides, if any does."""
    classes = [c for c in kind.__mro__ if issubclass(c, BaseModel)]
    declaring = [c for c in classes if name in inspect.get_annotations(c)]
    changing = [c for c in classes if c in declaring or any(e.setting == name for e in vars(c).get("effects", ()))]
    return changing[0], declaring[min(1, len(declaring) - 1)]


def _bare(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A field's schema without what a description says beside it, and with the definitions that it refers to."""
    bare = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
    if "$ref" in bare:
        target = definitions[bare.pop("$ref").rpartition("/")[2]]
        bare |= {"type": "object"} if "properties" in target else _bare(target, definitions)
    for key in ("anyOf", "oneOf", "prefixItems"):
        if key in bare:
            bare[key] = [_bare(part, definitions) for part in bare[key]]
    if isinstance(bare.get("items"), Mapping):
        bare["items"] = _bare(bare["items"], definitions)
    return bare


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(as_text, schema["enum"]))
    if "const" in schema:
        return as_text(schema["const"])
    kind = schema.get("type")
    if kind is None:
        return "any value"
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items") or {}]
        count = f"{len(items)} " if "prefixItems" in schema else ""
        return f"list of {count}{_MANY.get(items[0].get('type'), 'values')}"
    if kind == "object":
        return "mapping"
    bounds = " and ".join(f"{sign} {_number(schema[key])}" for key, sign in _BOUNDS.items() if key in schema)
    return f"{_TYPES[kind]} {bounds}".strip()
