"""An endless, resumable order over the items of several data sources, each with its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from sharpen.data.cursor import Cursor
from sharpen.errors import CheckpointError, DataError
from sharpen.system.seeds import stream_seed


class Shares:
    """Deals out sources so that each holds its share λ of the draws at all times.

    After n draws a source has ⌊n·λ⌋ or ⌈n·λ⌉ of them, λ being its share of the sum of all. Of the sources that do not
    have their share yet, the next is the one that must come soonest to keep it, (drawn + 1)/λ being smallest; the first
    one at a tie. This is earliest deadline first for proportionate progress (Baruah et al. 1996).
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        # The decimal number that the recipe gives, not the binary one nearest to it.
        exact = {name: Fraction(str(share)) for name, share in shares.items()}
        self._share = {name: share / sum(exact.values()) for name, share in exact.items()}
        self.drawn = dict.fromkeys(shares, 0)

    def next(self) -> str:
        count = sum(self.drawn.values()) + 1
        behind = [name for name, share in self._share.items() if self.drawn[name] < count * share]
        name = min(behind, key=lambda name: (self.drawn[name] + 1) / self._share[name])
        self.drawn[name] += 1
        return name


def dealt(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """How many of the first ``count`` draws are each source's."""
    dealing = Shares(shares)
    for _ in range(count):
        dealing.next()
    return dealing.drawn


class SourceCursor:
    """Endless, deterministic order over items of several sources: `Shares` says which source comes next.

    Within a source the order is that of its own `Cursor`, with epochs of its own. The only state is theirs.
    """

    def __init__(self, items: Mapping[str, Sequence[int]], shares: Mapping[str, float], seed: int) -> None:
        """``items`` are the numbers of each source's items.

        Raises DataError if a source has no item.
        """
        self._items = {name: items.get(name, ()) for name in shares}
        if empty := [name for name, of_source in self._items.items() if not of_source]:
            raise DataError(f"data.sources.{empty[0]}: there is nothing to draw from it")
        self._cursors = {
            name: Cursor(len(of_source), stream_seed(seed, f"source/{name}")) for name, of_source in self._items.items()
        }
        self._given = {name: str(share) for name, share in shares.items()}
        self._shares = Shares(shares)
        self._first = dict.fromkeys(shares, 0)
        """The epoch of each source at which its draws began to count: 0, unless the data changed since."""

    def take(self, count: int) -> list[int]:
        """The next ``count`` items by their number, in the order in which they are drawn."""
        names = [self._shares.next() for _ in range(count)]
        return [self._items[name][self._cursors[name].take(1)[0]] for name in names]

    def instead_of(self, item: int) -> int:
        """The next item of the same source, for one that was taken and cannot be used. It does not count as drawn."""
        name = next(name for name, of_source in self._items.items() if item in of_source)
        return self._items[name][self._cursors[name].instead_of(item)]

    @property
    def left_out(self) -> int:
        """How many items were taken and could not be used."""
        return sum(cursor.left_out for cursor in self._cursors.values())

    def state(self) -> dict[str, Any]:
        """What ``load`` needs to continue from here; JSON."""
        return {
            name: {
                "share": self._given[name],
                **cursor.state(),
                **({"first_epoch": self._first[name]} if self._first[name] else {}),
            }
            for name, cursor in self._cursors.items()
        }

    def load(self, state: Mapping[str, Any], *, changed: bool = False) -> None:
        """Continue from ``state``. If it was saved with other sources, shares, data or seed, all sources begin an epoch
        and are dealt out from the beginning if the data may have ``changed``; otherwise raises CheckpointError."""
        saved = {
            name: of_source.get("share") if isinstance(of_source, Mapping) else None
            for name, of_source in state.items()
        }
        if saved != self._given and not changed:
            raise CheckpointError(
                f"the data cursor was saved with the sources and shares {saved}, but here they are {self._given}: "
                "resume with those that the run was started with"
            )
        alike = saved == self._given and all(
            (state[name]["size"], state[name]["seed"]) == (cursor.size, cursor.seed)
            for name, cursor in self._cursors.items()
        )
        for name, cursor in self._cursors.items():
            known = state.get(name)
            if alike or not changed:
                cursor.load(state[name])
                self._first[name] = state[name].get("first_epoch", 0)
            elif isinstance(known, Mapping) and "epoch" in known:
                cursor.begin(known["epoch"] + 1)
                self._first[name] = cursor.epoch
            drawn = (cursor.epoch - self._first[name]) * cursor.size + cursor.position
            self._shares.drawn[name] = drawn - cursor.left_out
