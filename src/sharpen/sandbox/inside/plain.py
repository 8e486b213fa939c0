"""Plain data as JSON: the only data exchanged with untrusted programs.

Types that JSON lacks become an object with one key, the type's name. Values are decoded to exactly a builtin type,
whatever their class was, so no method of a user-defined class survives.

Decoding takes time linear in the number of bytes, and so does comparing the result with values of the same types.
Values that would take longer are rejected:

- an integer with more decimal digits than `encode` writes: parsing takes quadratic time;
- long numbers in a `Fraction`, which is reduced, and in a `range`, whose length is a quotient; a very long `Decimal`;
- a `Decimal` and a long number in one set, or among the keys of one dict: if their hashes are equal they are compared,
  which converts the number in quadratic time;
- many set items or dict keys with the same hash: each is compared with all others. Comparing two frozensets looks up
  the items of one in the other, so the counts of a frozenset and of the frozensets nested in it multiply;
- very many items or keys whose hashes a program can choose, that is all but text, bytes and small integers: they can be
  chosen to share one probe sequence in the hash table, so that each probes past all the others.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from itertools import groupby, islice
from typing import Any

from . import collector

MAX_ITEMS_OF_AN_ITERATOR = 100_000
_MAX_ALIKE = 64
_MAX_BITS = 80_000
"""Of the numbers in a fraction or a range."""
_MAX_BITS_BESIDE_DECIMALS = 4_000
"""Of the numbers in a set, or among the keys of a dict, that also contains a `Decimal`."""
_MAX_DIGITS = 10_000
"""Of a `Decimal`."""
_MAX_STEPS = 200_000_000
"""Probe steps in all hash tables of a message together: most of a second."""
_SMALL = 1 << 20
"""Too few integers lie below this to build such a probe sequence."""
_JSON_INTEGER = 1 << 62
_JSON_INTEGER_CHARACTERS = len(str(-_JSON_INTEGER))


class NotPlain(ValueError):
    """A value, or the encoding of one, is not plain data."""


class TooCostly(NotPlain):
    """Plain data that would take much more than linear time to decode or compare."""


def encode(value: Any) -> bytes:
    """Encode a value as bytes. An iterator is read to its end, and decoded as an iterator.

    Raises:
        NotPlain: it contains an unsupported type, or is nested too deep.
    """
    try:
        return json.dumps(_write(value), separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        raise NotPlain("the value is nested too deep") from None


def decode(data: bytes) -> Any:
    """Decode a value from a source that may be hostile.

    Raises:
        NotPlain: `encode` does not write such bytes.
        TooCostly: the value is one of those rejected, see the module.
    """
    try:
        with collector.paused():
            return json.loads(data, parse_int=_json_integer, object_pairs_hook=_Reader().read)
    except NotPlain:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise NotPlain(f"not plain data: {error}") from None


def _write(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__index__(value)
        return number if -_JSON_INTEGER < number < _JSON_INTEGER else {"int": int.__format__(number, "x")}
    if isinstance(value, float):
        real = float.__float__(value)
        return real if math.isfinite(real) else {"float": repr(real)}
    if isinstance(value, list):
        return _write_all(list.__iter__(value))
    for name, (kind, write) in _WRITERS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    raise NotPlain(f"a value of type {type(value).__name__} is not plain data")


def _write_all(items: Iterable[Any]) -> list[Any]:
    return [_write(item) for item in items]


def _write_iterator(iterator: Iterator[Any]) -> list[Any]:
    items = list(islice(iterator, MAX_ITEMS_OF_AN_ITERATOR + 1))
    if len(items) > MAX_ITEMS_OF_AN_ITERATOR:
        raise NotPlain(f"an iterator of more than {MAX_ITEMS_OF_AN_ITERATOR} items is not plain data")
    return _write_all(items)


_WRITERS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "tuple": (tuple, lambda value: _write_all(tuple.__iter__(value))),
    "dict": (dict, lambda value: [[_write(key), _write(item)] for key, item in dict.items(value)]),
    "set": (set, lambda value: _write_all(set.__iter__(value))),
    "frozenset": (frozenset, lambda value: _write_all(frozenset.__iter__(value))),
    "complex": (complex, lambda value: [_write(value.real), _write(value.imag)]),
    "bytes": (bytes, bytes.hex),
    "bytearray": (bytearray, bytearray.hex),
    "range": (range, lambda value: [_write(value.start), _write(value.stop), _write(value.step)]),
    "deque": (deque, lambda value: _write_all(deque.__iter__(value))),
    "Fraction": (Fraction, lambda value: [_write(value.numerator), _write(value.denominator)]),
    "Decimal": (Decimal, Decimal.__str__),
    "keys": (KeysView, _write_all),
    "values": (ValuesView, _write_all),
    "iterator": (Iterator, _write_iterator),
}


@dataclasses.dataclass(slots=True)
class _Held:
    """Properties that make set items or dict keys costly to compare with others of the same hash."""

    alike: int = 1
    """Number of items of a frozenset that share a hash, times the same number for frozensets nested in it."""
    bits: int = 0
    """Of the longest integer."""
    decimals: bool = False

    def add(self, other: _Held) -> None:
        self.alike = max(self.alike, other.alike)
        self.bits = max(self.bits, other.bits)
        self.decimals |= other.decimals


class _Reader:
    """Builds values from JSON objects, inner ones first."""

    def __init__(self) -> None:
        self._held_by: dict[int, _Held] = {}
        """Keyed by the ``id`` of a frozenset."""
        self._steps = 0

    def read(self, pairs: list[tuple[str, Any]]) -> Any:
        """The value that a JSON object encodes."""
        ((name, inner),) = pairs
        kind, make = _READERS[name]
        _require(kind, inner)
        return make(self, inner)

    def read_set(self, items: list[Any]) -> set[Any]:
        self._table_of(items)
        return set(items)

    def read_frozenset(self, items: list[Any]) -> frozenset[Any]:
        held = self._table_of(items)
        made = frozenset(items)
        self._held_by[id(made)] = held
        return made

    def read_dict(self, pairs: list[Any]) -> dict[Any, Any]:
        made = [(key, item) for key, item in pairs]
        self._table_of([key for key, _ in made])
        return dict(made)

    def _table_of(self, items: list[Any]) -> _Held:
        """Check that a hash table of the items can be built and compared in linear time; return their properties."""
        self._steps += len(items) * sum(map(_has_a_chosen_hash, items))
        if self._steps > _MAX_STEPS:
            raise TooCostly("very many items of sets, or dict keys, other than text and small integers")
        held = self._held(items)
        # Sorted, not counted in a dict: an attacker may have chosen these hashes to collide in one.
        held.alike *= max((len(list(same)) for _, same in groupby(sorted(map(hash, items)))), default=1)
        if held.alike > _MAX_ALIKE:
            raise TooCostly("many items of a set, or dict keys, with the same hash")
        if held.decimals and held.bits > _MAX_BITS_BESIDE_DECIMALS:
            raise TooCostly("a set, or dict keys, with both a decimal and a very large number")
        return held

    def _held(self, items: Iterable[Any]) -> _Held:
        held = _Held()
        for item in items:
            if type(item) is int:
                held.bits = max(held.bits, item.bit_length())
            elif type(item) is Fraction:
                held.bits = max(held.bits, item.numerator.bit_length(), item.denominator.bit_length())
            elif type(item) is Decimal:
                held.decimals = True
            elif type(item) is tuple:
                held.add(self._held(item))
            elif type(item) is frozenset:
                held.add(self._held_by[id(item)])
        return held


def _has_a_chosen_hash(item: Any) -> bool:
    """Whether a program can choose the item's hash. Text and bytes are hashed with a secret key."""
    kind = type(item)
    return kind is not str and kind is not bytes and not (kind is int and -_SMALL < item < _SMALL)


def _read_decimal(written: str) -> Decimal:
    if len(written) > _MAX_DIGITS:
        raise TooCostly("a decimal of very many digits")
    return Decimal(written)


def _read_complex(parts: list[Any]) -> complex:
    for part in parts:
        _require(float, part)
    return complex(*parts)


def _integers(numbers: list[Any]) -> list[int]:
    """Check integers that arithmetic is done on."""
    for number in numbers:
        _require(int, number)
        if number.bit_length() > _MAX_BITS:
            raise TooCostly("a fraction, or a range, of very large numbers")
    return numbers


def _json_integer(digits: str) -> int:
    if len(digits) > _JSON_INTEGER_CHARACTERS:
        raise NotPlain("an integer of many decimal digits")
    return int(digits)


def _require(kind: type, value: Any) -> None:
    if type(value) is not kind:
        raise NotPlain(f"expected {kind.__name__}, not {type(value).__name__}")


_READERS: dict[str, tuple[type, Callable[[_Reader, Any], Any]]] = {
    "int": (str, lambda _, written: int(written, 16)),
    "float": (str, lambda _, written: float(written)),
    "tuple": (list, lambda _, items: tuple(items)),
    "dict": (list, _Reader.read_dict),
    "set": (list, _Reader.read_set),
    "frozenset": (list, _Reader.read_frozenset),
    "complex": (list, lambda _, parts: _read_complex(parts)),
    "bytes": (str, lambda _, written: bytes.fromhex(written)),
    "bytearray": (str, lambda _, written: bytearray.fromhex(written)),
    "range": (list, lambda _, numbers: range(*_integers(numbers))),
    "deque": (list, lambda _, items: deque(items)),
    "Fraction": (list, lambda _, numbers: Fraction(*_integers(numbers))),
    "Decimal": (str, lambda _, written: _read_decimal(written)),
    "keys": (list, _Reader.read_set),
    "values": (list, lambda _, items: items),
    "iterator": (list, lambda _, items: iter(items)),
}
