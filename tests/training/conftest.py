from typing import Any

import pytest

from one_thread import one_thread
from sharpen.rollout.sources import Collected
from sharpen.training.trainer import Trainer
from sharpen.types import Group

__all__ = ["one_thread"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[Group]]:
    """The groups of every step, as the trainer was given them."""
    kept: list[list[Group]] = []

    class Recording:
        def __init__(self, source: Any) -> None:
            self.source = source

        def __getattr__(self, name: str) -> Any:
            return getattr(self.source, name)

        def collect(self, world: Any, prompts: int) -> Collected:
            drawn: Collected = self.source.collect(world, prompts)
            kept.append(drawn.groups)
            return drawn

    begin = Trainer.__init__

    def recording(self: Trainer, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        self.source = Recording(self.source)

    monkeypatch.setattr(Trainer, "__init__", recording)
    return kept
