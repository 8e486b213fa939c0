"""The same with a teacher that sees a hint: before each prompt it reads the tokens of the row's ``hint_ids``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from own_teacher import Distillation
from torch import Tensor

from sharpen.batch import Batch
from sharpen.methods.streams import Producer, StepModels
from sharpen.types import Group


def with_hint(batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
    # A trajectory of several samples has several prefixes.
    group_B = batch.group_E[batch.samples.trajectory_B].tolist()
    group_of = dict(zip(batch.samples.prefix_B.tolist(), group_B, strict=True))
    prefixes = [
        torch.cat([torch.tensor(groups[group_of[p]].prompt.row["hint_ids"]), prefix])
        for p, prefix in enumerate(batch.prefixes)
    ]
    return {"teacher_logprobs": models.output("teacher", "logprobs", replace(batch, prefixes=tuple(prefixes)))}


class HintedDistillation(Distillation):
    name = "hinted_distillation"

    def producers(self) -> tuple[Producer, ...]:
        return (Producer(("teacher_logprobs",), with_hint),)
