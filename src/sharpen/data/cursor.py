"""An endless, resumable order over the items of a data set."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.errors import CheckpointError


class Cursor:
    """Endless, deterministic order over ``size`` items: a new permutation every epoch.

    An epoch's permutation depends only on ``seed`` and the epoch's number, so the state is two numbers, and how many
    items were ``left_out``.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.left_out = 0
        self._order = self._permutation(0)

    def take(self, count: int) -> list[int]:
        """The next ``count`` items, across the end of an epoch if need be."""
        taken: list[int] = []
        while len(taken) < count:
            if self.position == self.size:
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation(self.epoch)
            items = self._order[self.position : self.position + count - len(taken)]
            taken += items.tolist()
            self.position += len(items)
        return taken

    def instead_of(self, item: int) -> int:
        """The next item, for one that was taken and cannot be used."""
        self.left_out += 1
        return self.take(1)[0]

    def state(self) -> dict[str, int]:
        """What ``load`` needs to continue from here; JSON."""
        state = {"size": self.size, "seed": self.seed, "epoch": self.epoch, "position": self.position}
        return {**state, "left_out": self.left_out} if self.left_out else state

    def load(self, state: Mapping[str, Any], *, changed: bool = False) -> None:
        """Continue from ``state``. If it was saved with other data or another seed, the next epoch begins if the data
        may have ``changed``; otherwise raises CheckpointError."""
        for field, ours in (("size", self.size), ("seed", self.seed)):
            if state[field] != ours:
                if not changed:
                    raise CheckpointError(
                        f"the data cursor was saved with {field} {state[field]}, but here {field} is {ours}: "
                        "resume with the data and the seed that the run was started with"
                    )
                self.begin(state["epoch"] + 1)
                return
        self.epoch, self.position = state["epoch"], state["position"]
        self.left_out = state.get("left_out", 0)
        self._order = self._permutation(self.epoch)

    def begin(self, epoch: int) -> None:
        """Go on at the start of an epoch."""
        self.epoch, self.position = epoch, 0
        self._order = self._permutation(epoch)

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        return generator.permutation(self.size)
