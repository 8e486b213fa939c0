"""Prompts and groups by their number: made at the start, or of very many rows when they are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, islice
from typing import Generic, TypeVar

from sharpen.data.rows import Rows
from sharpen.types import Group, Prompt

Item = TypeVar("Item", Prompt, Group)

MADE_AT_ONCE = 1000
"""Items that are made together where all are wanted."""


class Items(ABC, Generic[Item]):
    """Items of one or several sources, by number."""

    @abstractmethod
    def __len__(self) -> int:
        """How many numbers there are. Some may stand for rows that are left out."""

    @abstractmethod
    def take(self, numbers: Sequence[int]) -> list[Item | None]:
        """The items of these numbers; None for a row that is left out as too long.

        Raises DataError for a row that cannot be used.
        """

    @abstractmethod
    def number_of(self, prompt: Prompt) -> int:
        """The number of a prompt that was taken."""

    @property
    @abstractmethod
    def at_hand(self) -> Sequence[Item]:
        """Those that were made at the start: all, unless they are very many."""

    @abstractmethod
    def by_source(self) -> dict[str, Sequence[int]]:
        """The numbers of each source's items."""

    def first(self, numbers: Sequence[int] | None = None, *, at_most: int | None) -> list[Item]:
        """The first ``at_most`` items of these numbers, without those that are left out; None: all."""
        numbers = range(len(self)) if numbers is None else numbers
        size = MADE_AT_ONCE if at_most is None else max(1, min(at_most, MADE_AT_ONCE))
        batches = (numbers[start : start + size] for start in range(0, len(numbers), size))
        return list(islice((item for batch in batches for item in self.take(batch) if item is not None), at_most))


class MadeItems(Items[Item]):
    """Items that are all there."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items: Sequence[Item] = items

    def __len__(self) -> int:
        return len(self._items)

    def take(self, numbers: Sequence[int]) -> list[Item | None]:
        return [self._items[number] for number in numbers]

    def number_of(self, prompt: Prompt) -> int:
        return self._numbers[id(prompt)]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id(prompt_of(item)): number for number, item in enumerate(self._items)}

    @property
    def at_hand(self) -> Sequence[Item]:
        return self._items

    def by_source(self) -> dict[str, Sequence[int]]:
        return grouped(prompt_of(item).source for item in self._items)


class DrawnItems(Items[Item]):
    """Items of the rows of a source, made each time that they are taken. The number of an item is that of its row."""

    def __init__(
        self, rows: Rows, make: Callable[[Sequence[int]], list[Item | None]], at_hand: Sequence[Item], source: str = ""
    ) -> None:
        """``make`` gives the items of the rows of these numbers, None for one that is too long."""
        self._make: Callable[[Sequence[int]], list[Item | None]] = make
        self._at_hand: Sequence[Item] = at_hand
        self._rows, self._source = rows, source

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: Sequence[int]) -> list[Item | None]:
        return self._make(numbers) if numbers else []

    def number_of(self, prompt: Prompt) -> int:
        return self._rows.number_of(prompt.id)

    @property
    def at_hand(self) -> Sequence[Item]:
        return self._at_hand

    def by_source(self) -> dict[str, Sequence[int]]:
        return {self._source: range(len(self))}


class JoinedItems(Items[Item]):
    """The items of several sources, one source's after the other's."""

    def __init__(self, parts: Mapping[str, Items[Item]]) -> None:
        """``parts`` are by the name of their source."""
        self._of: Mapping[str, Items[Item]] = parts
        self._parts: list[Items[Item]] = list(parts.values())
        self._starts = list(accumulate(map(len, self._parts), initial=0))
        self._start_of = dict(zip(parts, self._starts[:-1], strict=True))

    def __len__(self) -> int:
        return self._starts[-1]

    def take(self, numbers: Sequence[int]) -> list[Item | None]:
        found: list[Item | None] = [None] * len(numbers)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            places.setdefault(bisect_right(self._starts, number) - 1, []).append(place)
        for part, own in places.items():
            taken = self._parts[part].take([numbers[place] - self._starts[part] for place in own])
            for place, item in zip(own, taken, strict=True):
                found[place] = item
        return found

    def number_of(self, prompt: Prompt) -> int:
        return self._start_of[prompt.source] + self._of[prompt.source].number_of(prompt)

    @property
    def at_hand(self) -> Sequence[Item]:
        return [item for part in self._parts for item in part.at_hand]

    def by_source(self) -> dict[str, Sequence[int]]:
        return {name: range(start, start + len(self._of[name])) for name, start in self._start_of.items()}


def joined(parts: Mapping[str, Items[Item]]) -> Items[Item]:
    """The items of all sources, by the name of each."""
    if all(isinstance(part, MadeItems) for part in parts.values()):
        return MadeItems(tuple(chain.from_iterable(part.at_hand for part in parts.values())))
    [alone, *others] = parts.values()
    return JoinedItems(parts) if others else alone


def prompt_of(item: Prompt | Group) -> Prompt:
    return item if isinstance(item, Prompt) else item.prompt


def grouped(sources: Iterator[str] | Sequence[str]) -> dict[str, Sequence[int]]:
    """The numbers of the items of each source; ``sources`` names that of each item."""
    found: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        found.setdefault(source, []).append(number)
    return dict(found)
