"""What a user may name: a part of sharpen by its name, or one of the user's own by where it is defined."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from sharpen.errors import SharpenError
from sharpen.suggest import did_you_mean
from sharpen.system.user_code import defined_in, describe, ends_program, load_source, named_failure, undisturbed

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """The methods, rewards, tasks, engines, loggers or turns that a recipe knows by name.

    A user's own is found as ``module:Name`` or ``path/to/file.py:Name``, without being registered. ``noun`` is what
    messages call an entry, and ``error`` the class of errors raised.
    """

    def __init__(self, noun: str, entries: Mapping[str, Entry], *, error: type[Exception]) -> None:
        self.noun, self.error = noun, error
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str, where: str = "") -> Entry | Any:
        """The entry of that name, or the user's own object, whatever it is.

        ``where`` says in messages what names it, such as a setting. Raises ``error`` if the name is unknown, with the
        nearest known one, or if the import fails.
        """
        if name in self._entries:
            return self._entries[name]
        if ":" in name:
            return load_named(name, f"{where or self.noun} {name!r}", self.error)
        said = f"{where}: unknown" if where else "unknown"
        known = f"Known: {', '.join(self)}; o" if self._entries else "O"
        raise self.error(
            f"{said} {self.noun} `{name}`.{did_you_mean(name, self)} {known}ne of your own is written module:Name or "
            "path/to/file.py:Name"
        )

    def name_of(self, entry: object) -> str | None:
        """The name by which ``find`` gives a class or function again; None if there is none, as for a lambda."""
        return next((name for name, known in self._entries.items() if known is entry), None) or own_name(entry)


def load_named(name: str, what: str, error: type[Exception]) -> Any:
    """The object at ``module:attribute`` or ``path/to/file.py:attribute``.

    Raises ``error``, with a message that begins with ``what``, if the import fails or the object is not there.
    """
    source, _, attribute = name.rpartition(":")
    try:
        with undisturbed():
            module = load_source(source)
    except (KeyboardInterrupt, SharpenError):
        raise
    except BaseException as failed:
        if ends_program(failed):
            raise error(
                f"{what}: importing {source!r} ends the program with {describe(failed)}; put what a script does under "
                '`if __name__ == "__main__":`'
            ) from failed
        hint, package = "", source.partition(".")[0]
        if isinstance(failed, ModuleNotFoundError) and failed.name in (source, package):
            hint = f"; run it from the folder that holds {package!r}, or write the path of a file"
        raise error(f"{what}: importing {source!r} failed with {describe(failed)}{hint}") from failed
    found: Any = module
    for part in attribute.split("."):
        # A module may compute its attributes.
        with named_failure(f"{what}: {attribute!r} of {source!r}", error):
            there = hasattr(found, part)
        if not there:
            known = [n for n in vars(module) if not n.startswith("_")]
            raise error(f"{what}: {source!r} has no {attribute!r}.{did_you_mean(attribute, known)}")
        found = getattr(found, part)
    return found


def own_name(thing: object) -> str | None:
    """The name by which ``load_named`` finds a class or function again, in this or another process.

    None for what no import gives: a lambda, what is defined within a function or in a notebook, a method of an object,
    and any object that is not itself an attribute of a module under its own name.
    """
    path, module = getattr(thing, "__qualname__", None), getattr(thing, "__module__", None)
    if not isinstance(path, str) or not isinstance(module, str) or "<" in path or module not in sys.modules:
        return None
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not thing:
        return None
    source = defined_in(module)
    return None if source is None else f"{source}:{path}"
