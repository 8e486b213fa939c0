"""A user's object by name: ``module:attribute`` or ``path/to/file.py:attribute``."""

from __future__ import annotations

from typing import Any

from sharpen.errors import SharpenError
from sharpen.rewards.execution.user_code import describe, ends_program, load_source, undisturbed
from sharpen.suggest import did_you_mean


def load_named(name: str, what: str, error: type[SharpenError]) -> Any:
    """The object of that name. Raises ``error``, which begins with ``what``, if the import fails or it is not there."""
    source, _, attribute = name.rpartition(":")
    try:
        with undisturbed():
            module = load_source(source)
    except (ImportError, OSError, SyntaxError, ValueError) as failed:
        raise error(f"{what}: importing {source!r} failed with {type(failed).__name__}: {failed}") from failed
    except BaseException as failed:
        if not ends_program(failed):
            raise
        raise error(
            f"{what}: importing {source!r} ends the program with {describe(failed)}; put what a script does under "
            '`if __name__ == "__main__":`'
        ) from failed
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(module) if not n.startswith("_")]
            raise error(f"{what}: {source!r} has no {attribute!r}.{did_you_mean(attribute, known)}")
        found = getattr(found, part)
    return found
