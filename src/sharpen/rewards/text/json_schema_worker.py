"""Worker process of `sharpen.rewards.text.json_schema`, run as a script.

Reads JSON lines ``{"schema", "text", …}`` from standard input and writes a line for each: ``{"valid": bool}``;
``{"refused": reason}`` for a value that the validator cannot take; or ``{"unusable": reason}`` if the schema cannot be
used. The schema is JSON text.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sharpen.system.worker_program import Answer, serve

MOST_NESTED = 100
"""JSON nested deeper is invalid if it overflows Python's stack."""
DEEPEST_CALLS = 50_000
"""A schema that takes more for a value of `MOST_NESTED` levels goes round in circles."""
_STACK_BYTES = 256 << 20


@lru_cache(maxsize=1000)
def validator_of(schema: str) -> Any:
    """The validator for a schema: of the draft that it names, by default 2020-12."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    of = json.loads(schema)
    return validator_for(of, default=Draft202012Validator)(of, registry=Registry())


def is_valid(text: str, validator: Any) -> bool:
    """Whether a text is strict JSON and its value is valid.

    Raises ArithmeticError or ValueError for a value that the validator cannot take, and any other exception for a
    schema that cannot be used: RecursionError for one that refers to itself without end.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return False
    try:
        return bool(validator.is_valid(value))
    except RecursionError:
        if _nesting(value) > MOST_NESTED:
            return False
    return _with_a_deep_stack(lambda: bool(validator.is_valid(value)))


def _with_a_deep_stack(check: Callable[[], bool]) -> bool:
    results: list[bool] = []
    errors: list[Exception] = []

    def work() -> None:
        usual = sys.getrecursionlimit()
        sys.setrecursionlimit(DEEPEST_CALLS)
        try:
            results.append(check())
        except Exception as error:  # noqa: BLE001  raised again in the calling thread
            errors.append(error)
        finally:
            sys.setrecursionlimit(usual)

    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _nesting(value: Any) -> int:
    """The nesting depth of lists and objects."""
    depth, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, (dict, list)) for inner in _inner(outer)]:
        depth += 1
    return depth


def _inner(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"valid": is_valid(question["text"], validator_of(question["schema"]))}
    except MemoryError:
        raise
    except (ArithmeticError, ValueError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    # An unresolvable or circular reference in the schema may raise anything.
    except Exception as error:  # noqa: BLE001
        return {"unusable": f"{type(error).__name__}: {error}"}


def _prepared() -> Answer:
    if not _answer({"schema": '{"type": "integer"}', "text": "1"}).get("valid"):
        raise RuntimeError("jsonschema does not find an integer to be one")
    return _answer


if __name__ == "__main__":
    serve(_prepared)
