"""A reward for JSON that is valid under a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from sharpen.rewards.text.extraction import in_tags
from sharpen.rewards.text.json_schema_worker import validator_of
from sharpen.rewards.verifier import Verifier
from sharpen.settings import Effect, Name, Seconds
from sharpen.system.workers import Exhausted, WorkerPool
from sharpen.types import Refused, Row

_OPENING = re.compile(r" {0,3}```[ \t]*+(?:json)?[ \t]*+", re.IGNORECASE)
_CLOSING = re.compile(r" {0,3}```[ \t]*+")

# One pool per process, started on first use: a schema's patterns and other rules may take unbounded time.
_workers = WorkerPool(Path(__file__).with_name("json_schema_worker.py"))


class JsonSchema(Verifier):
    """1 if the completion's JSON is valid under the schema, else 0.

    ``schema`` is a JSON schema (https://json-schema.org), or ``column`` names the column that holds a schema for each
    row, as a mapping or as JSON text. ``answer_from`` says where the JSON is: ``whole``, ``fence`` (the last block
    between lines of three backticks, labelled json or unlabelled) or ``tags`` (``<answer>…</answer>``, see ``tag``). It
    must be strict JSON: no NaN, no duplicate keys, nothing around it. A schema may only refer to parts of itself, as
    nothing is fetched; ``format`` is not checked. Patterns in a schema use Python's syntax, see `Regex`.

    Values are validated in worker processes. A value that takes longer than ``timeout_s``, or that the validator cannot
    take, such as the number 1e400 under ``multipleOf``, is `Refused`: 0, with the reason recorded.

    Raises ValueError for an invalid schema, at construction or, for a row's schema, while scoring; and while scoring
    for an unresolvable reference.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
    name: ClassVar[str] = "json_schema"
    at_once: ClassVar[int] = _workers.size

    of: dict[str, Any] | bool | None = Field(None, alias="schema")
    """The JSON schema, the same for all rows."""
    column: Name | None = None
    """The column with the schema of each row, instead of `schema`."""
    answer_from: Literal["whole", "fence", "tags"] = "whole"
    """Where the JSON is: the whole completion, the last fenced block, or between tags."""
    tag: Name = "answer"
    """The name of the tags around the JSON."""
    timeout_s: Seconds = 5.0
    """Time limit of one validation in seconds of processor time; the completion then has the reward 0."""

    effects = (Effect("tag", "with answer_from tags", lambda s: s.answer_from == "tags"),)

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if (self.of is None) == (self.column is None):
            raise ValueError("give either schema (a JSON schema) or column (the column that holds the schemas)")
        if self.of is not None:
            self._own  # noqa: B018
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def check_row(self, row: Row) -> None:
        self._schema(row)

    def __call__(self, completion: str, **row: Any) -> float:
        schema = self._schema(row)
        text = self._text(completion)
        if text is None:
            return 0.0
        try:
            reply = _workers.judge({"schema": schema, "text": text}, self.timeout_s)
        except Exhausted as error:
            return Refused(str(error), timed_out=error.timed_out)
        if "unusable" in reply:
            raise ValueError(f"the schema cannot be used: {reply['unusable']}")
        return Refused(reply["refused"]) if "refused" in reply else float(reply["valid"])

    def _schema(self, row: Row) -> str:
        return self._own if self.column is None else _checked(_schema_of(row, self.column))

    @cached_property
    def _own(self) -> str:
        return _checked(self.of)

    def _text(self, completion: str) -> str | None:
        if self.answer_from == "tags":
            return in_tags(completion, self.tag)
        if self.answer_from == "fence":
            return _last_block(completion)
        return completion


def _last_block(text: str) -> str | None:
    """The content of the last block fenced by three backticks, labelled json or unlabelled."""
    last: str | None = None
    opened: list[str] | None = None
    *lines, ending = text.split("\n")
    for line in lines:
        if opened is None:
            opened = [] if _OPENING.fullmatch(line) else None
        elif _CLOSING.fullmatch(line):
            last, opened = "\n".join(opened), None
        else:
            opened.append(line)
    if opened is not None and _CLOSING.fullmatch(ending):
        return "\n".join(opened)
    return last


def _checked(schema: Any) -> str:
    """The schema as JSON text. Raises ValueError if it is invalid or has external references."""
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the schema is not JSON: {error}") from error
    try:
        from jsonschema.exceptions import SchemaError

        validator = validator_of(text)
    except ModuleNotFoundError as error:
        raise ValueError(f'needs the package {error.name}; install it with: pip install "sharpen[format]"') from error
    try:
        validator.check_schema(validator.schema)
    except SchemaError as error:
        raise ValueError(f"invalid schema: {error.message} (at {error.json_path})") from error
    for reference in _references(validator.schema):
        if not reference.startswith("#"):
            raise ValueError(f"the schema refers to {reference!r} outside itself; external references are not fetched")
    return text


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _schema_of(row: Row, column: str) -> Any:
    schema = row.get(column)
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ValueError(f"the column {column!r} of this row is not JSON: {error}") from error
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"the column {column!r} of this row must hold a schema, not a {type(schema).__name__}")
    return schema
