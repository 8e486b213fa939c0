"""JSON that fulfils a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from sharpen.rewards.extraction import in_tags
from sharpen.rewards.verifier import Verifier

_FENCE = re.compile(r"^[ ]{0,3}```[ \t]*(?:json)?[ \t]*\n(.*?)^[ ]{0,3}```[ \t]*$", re.DOTALL | re.MULTILINE | re.I)


class JsonSchema(Verifier):
    """1 if the completion's JSON fulfils the schema, else 0.

    ``schema`` is a JSON schema (https://json-schema.org), or ``column`` names the column that holds one for each row,
    as a mapping or as JSON text. ``answer_from`` says where the JSON stands: ``whole``, ``fence`` (the last block
    between lines of three backticks, marked json or not marked) or ``tags`` (``<answer>…</answer>``, see ``tag``). It
    must be JSON to the letter: no NaN, no key twice, nothing around it. A schema refers to parts of itself only, as
    nothing is fetched; ``format`` is a note and not checked. Patterns of a schema are Python's, see `Regex`.

    Raises ValueError at construction for what is no schema, and while scoring for a row's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)
    name: ClassVar[str] = "json_schema"

    of: dict[str, Any] | bool | None = Field(None, alias="schema")
    column: str | None = None
    answer_from: Literal["whole", "fence", "tags"] = "whole"
    tag: str = Field("answer", min_length=1)

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if (self.of is None) == (self.column is None):
            raise ValueError("give either schema (a JSON schema) or column (where the rows' schemas stand)")
        if self.of is not None:
            _validator(self.of)
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def __call__(self, completion: str, **row: Any) -> float:
        validator = self._own if self.column is None else _validator(_schema_of(row, self.column))
        text = self._text(completion)
        if text is None:
            return 0.0
        try:
            value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct)
        except (ValueError, RecursionError):
            return 0.0
        return float(validator.is_valid(value))

    @cached_property
    def _own(self) -> Any:
        return _validator(self.of)

    def _text(self, completion: str) -> str | None:
        if self.answer_from == "tags":
            return in_tags(completion, self.tag)
        if self.answer_from == "fence":
            blocks = _FENCE.findall(completion)
            return str(blocks[-1]) if blocks else None
        return completion


def _validator(schema: Any) -> Any:
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
    except ModuleNotFoundError as error:
        raise ValueError(f'needs the package {error.name}; install it with: pip install "sharpen[format]"') from error
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"the schema is none: {error.message} (at {error.json_path})") from error
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(f"the schema refers to {reference!r}, which is not within it; nothing is fetched")
    return kind(schema, registry=Registry())


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _schema_of(row: dict[str, Any], column: str) -> Any:
    schema = row.get(column)
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ValueError(f"the column {column!r} of this row is no JSON: {error}") from error
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"the column {column!r} of this row holds no schema but a {type(schema).__name__}")
    return schema


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
