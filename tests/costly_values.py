"""Encoded values of any size that are as costly to decode and to compare as they are let to be, of every kind."""

from __future__ import annotations

import functools
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sharpen.sandbox.inside import collector
from sharpen.sandbox.inside.plain import encode

PRIME = (1 << 61) - 1
"""Numbers whose difference is a multiple of it have the same hash."""
_ALIKE = 64
_LONG_BITS = 80_000
_BITS_BESIDE_DECIMALS = 4_000


def of(size: int, items: Iterator[Any], container: str = "list") -> bytes:
    """A container with about as many of the items as ``size`` bytes hold."""
    if container == "dict":
        items = ([item, 0] for item in items)
    first = next(items)
    with collector.paused():
        made = [first, *itertools.islice(items, size // (len(encode([first])) - 1))]
        made = made[: len(made) * size // max(size, len(encode(made)))]
        data = encode(made)
    return data if container == "list" else f'{{"{container}":'.encode() + data + b"}"


def alike(make: Callable[[int], Any], start: int = 1, group: int = _ALIKE) -> Iterator[Any]:
    """Groups of items of the same hash: of integers that leave the same remainder."""
    for remainder in itertools.count(start):
        yield from (make(remainder + PRIME * k) for k in range(1, group + 1))


def _distinct(make: Callable[[int], Any], start: int = 1) -> Iterator[Any]:
    return map(make, itertools.count(start))


def _floats_and_decimals() -> Iterator[Any]:
    """2**61 is 1 modulo the prime, so that a float has the hash of many others, and of decimals."""
    for odd in itertools.count(1, 2):
        yield from (odd * 2.0**exponent for exponent in range(-1037, -1037 + 61 * 32, 61))
        remainder = hash(odd * 2.0**-1037)
        yield from (Decimal(remainder + PRIME * k) for k in range(32))


def _integers_and_decimals() -> Iterator[Any]:
    for remainder in itertools.count(1):
        yield from (Decimal(remainder + PRIME * k) for k in range(1, 33))
        yield from (remainder + PRIME * ((1 << _BITS_BESIDE_DECIMALS - 62) + k) for k in range(32))


def _chunks(items: Iterator[Any], length: int) -> Iterator[set[Any]]:
    while True:
        yield set(itertools.islice(items, length))


def _long_tuples(length: int = 100) -> Iterator[tuple[int, ...]]:
    """Alike but for their last item. The others are equal without being the same object."""
    for start in itertools.count(1000):
        same = tuple(range(start, start + length))
        yield from ((*same, PRIME * k) for k in range(_ALIKE))


def _frozensets(of_frozensets: int) -> Iterator[frozenset[Any]]:
    """Of 4 items of the same hash; each of these is such a frozenset, so many levels deep, or an integer.

    All on one level have the same hash: an even number of equal ones cancel out.
    """
    numbers = itertools.count(1)

    def make(level: int) -> frozenset[Any]:
        return frozenset(make(level - 1) if level else PRIME * next(numbers) for _ in range(4))

    while True:
        yield make(of_frozensets)


def _repeated(*items: Any) -> Callable[[int], bytes]:
    """A list of these again and again."""
    return _repeated_bytes(encode(list(items))[1:-1])


def _nested(depth: int, opening: str, closing: str) -> Callable[[int], bytes]:
    return _repeated_bytes((opening * depth + "1" + closing * depth).encode())


def _repeated_bytes(one: bytes) -> Callable[[int], bytes]:
    return lambda size: b"[" + b",".join([one] * (size // (len(one) + 1))) + b"]"


def _long_number(seed: int, bits: int = _LONG_BITS) -> int:
    return random.Random(seed).getrandbits(bits) | 1 << (bits - 1) | 1


def on_one_path(bits: int, walkers: int) -> list[int]:
    """Integers that make a dict of 2**bits places slow: half of its places, and walkers that pass most of these.

    Python looks for a place at h, and then at 5 i + 1 + p, where p is what is left of h after shifting out 5 bits each
    time, and in the end 0. The order of the places from there on is the same for all. The first half of it is filled;
    a walker's bits are chosen so that it finds only filled places, and comes to the beginning of that order.
    """
    random_bits = random.Random(0)
    mask = (1 << bits) - 1
    order = [0]
    while len(order) <= mask:
        order.append((5 * order[-1] + 1) & mask)
    place = {slot: number for number, slot in enumerate(order)}
    filled = len(order) // 2

    def walker() -> int | None:
        h = slot = random_bits.choice(order[:filled])
        known, shifted = bits, 5
        while known < 60:
            new = min(5, 60 - known)
            for _ in range(40):
                longer = h | random_bits.getrandbits(new) << known
                after = (5 * slot + 1 + (longer >> shifted)) & mask
                if place[after] < filled:
                    break
            else:
                return None
            h, slot, known, shifted = longer, after, known + new, shifted + 5
        while h >> (shifted - 5):
            slot = (5 * slot + 1 + (h >> shifted)) & mask
            if place[slot] >= filled:
                return None
            shifted += 5
        return h if place[slot] < len(order) // 32 else None

    found: set[int] = set()
    while len(found) < walkers:
        made = walker()
        if made is not None:
            found.add(made)
    return order[:filled] + sorted(found)


@functools.cache
def _dict_on_one_path() -> dict[int, int]:
    return dict.fromkeys(on_one_path(13, 1200), 0)


_THOUSAND = range(1, 1001)

LISTS: dict[str, Callable[[int], bytes]] = {
    "None": _repeated(None),
    "bools": _repeated(True, False),
    "digits": _repeated(1),
    "integers": _repeated(*(n << 50 for n in _THOUSAND)),
    "hexadecimal integers": _repeated(*(n << 100 for n in _THOUSAND)),
    "one long integer": lambda size: b'{"int":"' + b"f" * (size - 10) + b'"}',
    "long integers": _repeated(_long_number(1), _long_number(2)),
    "floats": _repeated(*(n / 7 for n in _THOUSAND)),
    "one long float": lambda size: b"0." + b"123456789" * (size // 9),
    "one float as text": lambda size: b'{"float":"' + b"9" * (size - 12) + b'"}',
    "complex": _repeated(1j),
    "one string": lambda size: encode("\ud800" * (size // 6)),
    "strings": _repeated(*map(str, _THOUSAND)),
    "bytes": lambda size: encode(b"\xff" * (size // 2)),
    "bytearrays": _repeated(bytearray(3)),
    "decimals": _repeated(Decimal("1E-999999999")),
    "long decimals": _repeated(Decimal("123456789" * 1111)),
    "fractions": _repeated(Fraction(22, 7)),
    "long fractions": _repeated(Fraction(_long_number(1), _long_number(2))),
    "ranges": _repeated(range(3)),
    "long ranges": _repeated(range(0, _long_number(1), _long_number(2, _LONG_BITS // 2))),
    "iterators": lambda size: _repeated_bytes(b'{"iterator":[1]}')(size),
    "lists": _repeated([1]),
    "tuples": _repeated((1, 2)),
    "deques": _repeated(deque([1, 2])),
    "sets": _repeated(set()),
    "frozensets": _repeated(frozenset({1, "a"})),
    "dicts": _repeated({"a": 1, 2: None}),
    "deep lists": _nested(150, "[", "]"),
    "deep tuples": _nested(150, '{"tuple":[', "]}"),
    "deep frozensets": _nested(100, '{"frozenset":[', "]}"),
    "deep dicts": _nested(100, '{"dict":[[0,', "]]}"),
}
"""Accepted: lists, for the most part, of values of one kind."""

TABLES: dict[str, Callable[[int], bytes]] = {
    "a set of integers": lambda size: of(size, _distinct(int), "set"),
    "a set of strings": lambda size: of(size, _distinct(str), "set"),
    "a set of tuples": lambda size: of(size, _distinct(lambda n: (n, -1)), "set"),
    "a set of frozensets": lambda size: of(size, _distinct(lambda n: frozenset({n, "a"})), "set"),
    "a dict of integers": lambda size: of(size, _distinct(int), "dict"),
    "a dict of strings": lambda size: of(size, _distinct(str), "dict"),
    "a set of alike integers": lambda size: of(size, alike(int), "set"),
    "a set of alike long integers": lambda size: of(size, alike(lambda n: n + (PRIME << 1000)), "set"),
    "a set of alike decimals": lambda size: of(size, alike(Decimal), "set"),
    "a set of alike long decimals": lambda size: of(size, alike(lambda n: Decimal(n + (PRIME << 1000))), "set"),
    "a set of alike fractions": lambda size: of(size, alike(lambda n: Fraction(3 * n + 1, 3)), "set"),
    "a set of alike floats and decimals": lambda size: of(size, _floats_and_decimals(), "set"),
    "a set of alike integers and decimals": lambda size: of(size, _integers_and_decimals(), "set"),
    "a set of alike tuples": lambda size: of(size, alike(lambda n: (n,)), "set"),
    "a set of alike long tuples": lambda size: of(size, _long_tuples(), "set"),
    "sets of alike frozensets": lambda size: of(size, _chunks(_frozensets(0), 16)),
    "frozensets of alike frozensets": lambda size: of(size, _frozensets(2)),
    "a dict of alike integers": lambda size: of(size, alike(int), "dict"),
    "a dict of alike long tuples": lambda size: of(size, _long_tuples(), "dict"),
    "dicts of integers on one path": lambda size: _repeated(_dict_on_one_path())(size),
    "a frozenset of alike integers": lambda size: of(size, alike(int), "frozenset"),
}
"""Accepted: values that Python hashes, as unlike and as alike as they may be."""


def _trees(size: int) -> bytes:
    """A set of frozensets of frozensets and so on: all of a level have the same hash, and two differ in one of 16."""
    nodes = [f'{{"int":"{PRIME * k:x}"}}' for k in range(2, 19)]
    while 16 * len(nodes[0]) < size // 2:
        nodes = [f'{{"frozenset":[{",".join(nodes[:k] + nodes[k + 1 :])}]}}' for k in range(17)]
    return f'{{"set":[{",".join(nodes[: size // len(nodes[0])])}]}}'.encode()


def _integer_and_decimals(size: int, item: str) -> bytes:
    """One long integer and sixty decimals of its hash."""
    number = (1 << (4 * size)) - 1
    items = [f'{{"int":"{number:x}"}}', *(f'{{"Decimal":"{hash(number) + PRIME * k}"}}' for k in range(60))]
    return f'{{"set":[{",".join(item % one for one in items)}]}}'.encode()


def _halves(size: int, kind: str) -> bytes:
    return f'{{"{kind}":[{{"int":"{"f" * (size // 2)}"}},{{"int":"{"7" * (size // 2)}"}}]}}'.encode()


REFUSED: dict[str, Callable[[int], bytes]] = {
    "decimal digits": lambda size: b"9" * size,
    "a long decimal": lambda size: b'{"Decimal":"' + b"9" * size + b'"}',
    "a long fraction": lambda size: _halves(size, "Fraction"),
    "a long range": lambda size: _halves(size, "range"),
    "a tuple of a range": lambda size: b'{"tuple":{"range":[0,%d,1]}}' % size**3,
    "a set of integers of one hash": lambda size: of(size, alike(int, group=size), "set"),
    "a dict of integers of one hash": lambda size: of(size, alike(int, group=size), "dict"),
    "a set of tuples of one hash": lambda size: of(size, alike(lambda n: (n,), group=size), "set"),
    "an integer and decimals": lambda size: _integer_and_decimals(size, "%s"),
    "tuples of an integer and decimals": lambda size: _integer_and_decimals(size, '{"tuple":[%s]}'),
    "trees of frozensets": _trees,
    "very many large integers": lambda size: of(size, (n << 40 for n in itertools.count(1)), "set"),
    "very many tuples": lambda size: of(size, ((n, -1) for n in itertools.count()), "dict"),
}
"""Each of these would take quadratic time, or worse."""
