"""Divides items into parts of similar work, none with too many tokens: greedy, largest first.

Every item goes to the part with the least work so far (of equals, to the first) among those with room for it. An item
with more tokens than a part may have gets a part of its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

SHORTEST_ROUND = 16
"""Items from which placing them at once, with numpy, is faster than one by one."""
MOST_PASSED_OVER = 4
"""Parts passed over for want of room, per item, from which it is faster to look at all parts with numpy."""
THRESHOLDS = 16
"""Token counts that the lower bound on the number of parts is computed for."""


def balanced(work: Sequence[float], tokens: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Divide items into as few parts as the greedy rule can, each of at most ``most_tokens`` tokens or one item.

    ``work`` is each item's work, above 0. Returns the parts' items, ascending. Raises ValueError for work that is not
    above 0.

    The greedy rule may fail for one number of parts although it succeeds for a smaller one, so every number is tried,
    from a lower bound up. Trying one takes O(n log n) where items with more work have at least as many tokens, as
    sequences with one prompt have. Elsewhere many parts may lack the room for an item; trying a number of parts c then
    takes O(n c), with numpy. Mostly few numbers are tried, but where the lower bound leaves a gap, as for two to ten
    items to a part, it grows with n.
    """
    _check(work)
    if len(work) <= 1 or sum(tokens) <= most_tokens:
        return [list(range(len(work)))] if work else []
    items = _Items.of(work, tokens, most_tokens)
    count = items.fewest_by_tokens()
    owner_I = items.owners(count)
    if owner_I is None:
        count = items.fewest_by_room(count + 1)
        while (owner_I := items.owners(count)) is None:
            count += 1
    return items.parts(owner_I, count)


def shares(work: Sequence[float], count: int) -> list[list[int]]:
    """Divide n items into ``count`` shares of similar work, of at most ⌈n / count⌉ items each, ascending.

    Raises ValueError for work that is not above 0.
    """
    _check(work)
    items = _Items.of(work, [1] * len(work), -(-len(work) // count))
    owner_I = items.owners(count)
    assert owner_I is not None, "as long as items are left, some share has room"
    return items.parts(owner_I, count)


def _check(work: Sequence[float]) -> None:
    for item, w in enumerate(work):
        if not w > 0:
            raise ValueError(f"the work of item {item} is {w:g}, which is not above 0")


@dataclass(frozen=True, slots=True)
class _Items:
    """I items in the order in which they are placed: by descending work, of equals the first one first."""

    order: NDArray[np.int64]
    work: NDArray[np.float64]
    tokens: NDArray[np.int64]
    most_tokens: int

    @classmethod
    def of(cls, work: Sequence[float], tokens: Sequence[int], most_tokens: int) -> _Items:
        work_I = np.array(work, dtype=np.float64)
        order = np.argsort(-work_I, kind="stable")
        return cls(order, work_I[order], np.array(tokens, dtype=np.int64)[order], most_tokens)

    def fewest_by_tokens(self) -> int:
        """A lower bound on the number of parts: all tokens must fit."""
        most = max(1, self.most_tokens)
        return max(1, -(-int(np.minimum(self.tokens, most).sum()) // most))

    def fewest_by_room(self, count: int) -> int:
        """A lower bound of ``count`` or more on the number of parts for which the greedy rule succeeds.

        The first c of c parts are begun with the first c items. Of all other items with x tokens or more, each part can
        then only take ⌊room / x⌋.
        """
        most = max(1, self.most_tokens)
        tokens = np.minimum(self.tokens, most)

        def may_fit(count: int) -> bool:
            room, rest = most - tokens[:count], np.sort(tokens[count:])
            for place in {len(rest) * part // THRESHOLDS for part in range(THRESHOLDS)} if len(rest) else ():
                least = max(1, rest[place])
                if len(rest) - np.searchsorted(rest, least) > (room // least).sum():
                    return False
            return True

        # What cannot fit into c parts cannot fit into fewer.
        enough = len(tokens)
        while count < enough:
            middle = (count + enough) // 2
            count, enough = (count, middle) if may_fit(middle) else (middle + 1, enough)
        return count

    def owners(self, count: int) -> NDArray[np.int64] | None:
        """The part of each item; None if the greedy rule fails for ``count`` parts."""
        alone = min(count, len(self.order))
        owner_I = np.arange(len(self.order))
        sums, room = self.work[:alone].copy(), self.most_tokens - self.tokens[:alone]
        place = self._place_rounds(alone, owner_I, sums, room)
        if place < len(self.order) and not self._place_rest(place, owner_I, sums.tolist(), room.tolist()):
            return None
        return owner_I

    def parts(self, owner_I: NDArray[np.int64], count: int) -> list[list[int]]:
        parts: list[list[int]] = [[] for _ in range(count)]
        by_item = np.empty_like(owner_I)
        by_item[self.order] = owner_I
        for item, part in enumerate(by_item.tolist()):
            parts[part].append(item)
        return parts

    def _place_rounds(
        self, place: int, owner_I: NDArray[np.int64], sums: NDArray[np.float64], room: NDArray[np.int64]
    ) -> int:
        """Place items from ``place`` on in rounds, in each of which every part gets at most one; returns the end.

        The j-th item of a round goes to the part with the j-th least work, as long as it has room and no part that has
        got one in this round has less work.
        """
        while place < len(owner_I):
            parts = np.argsort(sums, kind="stable")[: len(owner_I) - place]
            before, tokens = sums[parts], self.tokens[place : place + len(parts)]
            after = before + self.work[place : place + len(parts)]
            greedy = tokens <= room[parts]
            greedy[1:] &= before[1:] < np.minimum.accumulate(after)[:-1]
            size = len(parts) if greedy.all() else int(greedy.argmin())
            if size < SHORTEST_ROUND:
                break
            sums[parts[:size]] = after[:size]
            room[parts[:size]] -= tokens[:size]
            owner_I[place : place + size] = parts[:size]
            place += size
        return place

    def _place_rest(self, start: int, owner_I: NDArray[np.int64], sums: list[float], room: list[int]) -> bool:
        """Place the items from ``start`` on, one by one; returns whether all have found room."""
        tokens: list[int] = self.tokens[start:].tolist()
        work: list[float] = self.work[start:].tolist()
        if tokens[0] > max(room):
            return False
        least_of_rest = list(accumulate(reversed(tokens), min))[::-1]
        # Room that no item left can use is lost; once more is lost than is to spare, the greedy rule fails.
        spare = sum(r for r in room if r > 0) - sum(tokens)
        open_parts = [(s, p) for p, s in enumerate(sums)]
        heapq.heapify(open_parts)
        # Parts without room for an item, the one with most room first, wait for an item with fewer tokens.
        waiting: list[tuple[int, int]] = []
        passed_over = 0
        for place, t, w, least in zip(range(start, len(owner_I)), tokens, work, least_of_rest, strict=True):
            if passed_over > MOST_PASSED_OVER * len(tokens):
                return self._scan(place, owner_I, np.array(sums), np.array(room))
            while waiting and -waiting[0][0] >= t:
                p = heapq.heappop(waiting)[1]
                heapq.heappush(open_parts, (sums[p], p))
            while open_parts and room[open_parts[0][1]] < t:
                p = heapq.heappop(open_parts)[1]
                passed_over += 1
                if room[p] >= least:
                    heapq.heappush(waiting, (-room[p], p))
                else:
                    spare -= max(0, room[p])
            if not open_parts or spare < 0:
                return False
            p = open_parts[0][1]
            sums[p] += w
            room[p] -= t
            owner_I[place] = p
            heapq.heapreplace(open_parts, (sums[p], p))
        return True

    def _scan(self, start: int, owner_I: NDArray[np.int64], sums: NDArray[np.float64], room: NDArray[np.int64]) -> bool:
        """The same as `_place_rest`, by looking at all parts for each item."""
        for place in range(start, len(owner_I)):
            fits = room >= self.tokens[place]
            p = int(np.where(fits, sums, np.inf).argmin())
            if not fits[p]:
                return False
            sums[p] += self.work[place]
            room[p] -= self.tokens[place]
            owner_I[place] = p
        return True
