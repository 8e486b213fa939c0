import pytest

from one_thread import one_thread
from sharpen.rollout.sources import Collected
from sharpen.training.ahead import RolloutsAhead
from sharpen.types import Group

__all__ = ["one_thread"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[Group]]:
    """The groups of every step, as the trainer was given them."""
    kept: list[list[Group]] = []
    take = RolloutsAhead.take

    def recording(self: RolloutsAhead, step: int) -> tuple[Collected, list[Collected]]:
        taken = take(self, step)
        kept.append(taken[0].groups)
        return taken

    monkeypatch.setattr(RolloutsAhead, "take", recording)
    return kept
