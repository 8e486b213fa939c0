"""Plain data as JSON: all that passes between a program that nobody trusts and everybody else.

What JSON lacks is an object with one key, the name of the type. A value comes out as exactly a builtin type,
whatever class it was of, so that no method of its own comes with it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, KeysView, ValuesView
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import islice
from typing import Any

MAX_ITEMS_OF_AN_ITERATOR = 100_000
_MAX_SAME_HASH = 64
_MAX_NUMBER_BYTES = 10_000
_JSON_INTEGER = 1 << 62


class NotPlain(ValueError):
    """The value, or what claims to be one, is not plain data."""


def encode(value: Any) -> bytes:
    """The value as bytes.

    An iterator is read to its end, and comes out as an iterator.

    Raises:
        NotPlain: something in it is of no type that is known here, or it is nested too deep.
    """
    try:
        return json.dumps(_write(value), separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        raise NotPlain("the value is nested too deep") from None


def decode(data: bytes) -> Any:
    """What was encoded, from a source that may be hostile.

    Raises:
        NotPlain: the bytes are nothing that `encode` writes, or would cost far more time than their length.
    """
    try:
        return _read(json.loads(data))
    except NotPlain:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError, InvalidOperation, RecursionError) as error:
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


def _read(written: Any) -> Any:
    if isinstance(written, list):
        return _read_all(written)
    if isinstance(written, dict):
        ((name, inner),) = written.items()
        return _READERS[name](inner)
    return written


def _read_all(written: Any) -> list[Any]:
    return [_read(item) for item in written]


def _read_keys(written: Any) -> list[Any]:
    """Items of a set or keys of a dict; refused where so many share a hash that hashing takes quadratic time."""
    items = _read_all(written)
    # As text, because text is hashed with a secret: so counting is not slowed by what is counted.
    same = Counter(str(hash(item)) for item in items)
    if same and max(same.values()) > _MAX_SAME_HASH:
        raise NotPlain("many keys with the same hash")
    return items


def _read_dict(written: Any) -> dict[Any, Any]:
    keys = _read_keys([key for key, _ in written])
    return dict(zip(keys, [_read(item) for _, item in written], strict=True))


def _read_fraction(written: Any) -> Fraction:
    numerator, denominator = map(_integer, _read_all(written))
    if max(numerator.bit_length(), denominator.bit_length()) > 8 * _MAX_NUMBER_BYTES:
        raise NotPlain("a fraction of very large numbers")  # reducing it takes quadratic time
    return Fraction(numerator, denominator)


def _read_decimal(written: str) -> Decimal:
    if len(written) > _MAX_NUMBER_BYTES:
        raise NotPlain("a decimal of very many digits")
    return Decimal(written)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise NotPlain(f"{value!r} is no integer")
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda written: int(written, 16),
    "float": float,
    "tuple": lambda written: tuple(_read_all(written)),
    "dict": _read_dict,
    "set": lambda written: set(_read_keys(written)),
    "frozenset": lambda written: frozenset(_read_keys(written)),
    "complex": lambda written: complex(*map(float, _read_all(written))),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda written: range(*map(_integer, _read_all(written))),
    "deque": lambda written: deque(_read_all(written)),
    "Fraction": _read_fraction,
    "Decimal": _read_decimal,
    "keys": lambda written: set(_read_keys(written)),
    "values": _read_all,
    "iterator": lambda written: iter(_read_all(written)),
}
