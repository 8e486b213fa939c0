"""The teacher with a hint reads it before every context of a trajectory, not only before the prompt."""

from types import SimpleNamespace
from typing import Any, cast

from own_hint import with_hint

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.methods.streams import StepModels
from sharpen.types import Group, Prompt, Sample, Trajectory, single_turn


def test_every_sample_of_a_trajectory_is_hinted() -> None:
    two = Trajectory((Sample((1,), (4,), (True,)), Sample((1, 2), (7,), (True,))))
    groups = [
        Group(Prompt("a", (1,), "", {"hint_ids": [8]}), (single_turn((1,), (4,), ""), two)),
        Group(Prompt("b", (3,), "", {"hint_ids": [9]}), (single_turn((3,), (5,), ""),)),
    ]
    read: list[Batch] = []

    def output(model: str, what: str, batch: Batch) -> Any:
        read.append(batch)
        return batch.tokens_ET

    with_hint(collate(groups), groups, cast(StepModels, SimpleNamespace(output=output)))
    assert [prefix.tolist() for prefix in read[0].prefixes] == [[8, 1], [8, 1, 2], [9, 3]]
