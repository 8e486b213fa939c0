"""Worker process of `sharpen.rewards.text.json_schema`, run as a script.

Reads one JSON line ``{"schema", "text", "timeout_s"}`` after another from standard input and writes one line each:
``{"valid": bool}``, or ``{"raised": text}`` where the schema cannot be used. The schema is JSON text.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from sharpen.system.worker_program import serve

MOST_NESTED = 100
"""Python's stack may not suffice for JSON that is nested deeper: it fulfils nothing then."""


@lru_cache(maxsize=1000)
def validator_of(schema: str) -> Any:
    """What validates values by a schema, of the schema's own draft, or of 2020-12 where it names none."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    of = json.loads(schema)
    return validator_for(of, default=Draft202012Validator)(of, registry=Registry())


def fulfils(text: str, validator: Any) -> bool:
    """Whether a text is JSON to the letter, and its value valid. Raises what a schema that cannot be used does."""
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return False
    try:
        return bool(validator.is_valid(value))
    except RecursionError:
        if _nesting(value) > MOST_NESTED:
            return False
        raise


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _nesting(value: Any) -> int:
    """How deep lists and objects are nested."""
    depth, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, (dict, list)) for inner in _inner(outer)]:
        depth += 1
    return depth


def _inner(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"valid": fulfils(question["text"], validator_of(question["schema"]))}
    except MemoryError:
        raise
    # A reference that leads nowhere, or round in circles: the schema's fault, by whatever exception.
    except Exception as error:  # noqa: BLE001
        return {"raised": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    serve(lambda: _answer)
