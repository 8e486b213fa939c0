"""A reward model's scores are known up to a constant: in the end they are shifted to average 0 on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sharpen.assemble import assemble
from sharpen.errors import NonFiniteError
from sharpen.models.adapter_files import find_adapter, read_adapter
from sharpen.models.lora import sharing_frozen
from sharpen.models.model import Model
from sharpen.models.scorer import Scorer, centre, load_scorer
from sharpen.training.checkpoint import replace_model
from sharpen.training.metrics import Metrics
from sharpen.training.update import Limits
from sharpen.types import Group

LOOKED_AT = 1000
"""Demonstrations whose mean is taken; it is then known to 3 % of their spread."""


@dataclass(frozen=True, slots=True)
class Centring:
    """Centres scorers on the same demonstrations."""

    demonstrations: Sequence[Group]
    limits: Limits

    def centre(self, scorer: Model) -> Metrics:
        """Shift the scores in place, and say by how much."""
        assert isinstance(scorer, Scorer)
        taken = centre(
            scorer,
            assemble(self.demonstrations[:LOOKED_AT]),
            tokens_per_microbatch=self.limits.tokens_per_microbatch,
            shared=self.limits.shared_prompt,
        )
        if not math.isfinite(taken):
            raise NonFiniteError(f"the reward model's mean score of the demonstrations is {taken:g}")
        return {"score/centred_by": taken}

    def centre_saved(self, checkpoint: Path, like: Model) -> None:
        """The same with the scorer in a checkpoint, one saved before the end."""
        assert isinstance(like, Scorer)
        adapter = find_adapter(str(checkpoint))
        if adapter is None:
            saved = load_scorer(checkpoint, kind=like.kind, compute_dtype=like.compute_dtype, device=str(like.device))
        else:
            saved = replace(like, model=sharing_frozen(like.model))
            read_adapter(saved, adapter)
        self.centre(saved)
        replace_model(checkpoint, saved)


def best_of(ranked: Sequence[Group]) -> tuple[Group, ...]:
    """The completion of each group that has the highest grade, as a demonstration."""
    return tuple(_best(group) for group in ranked)


def _best(group: Group) -> Group:
    grades = [-torch.inf if s.total is None else s.total for s in group.scores]
    return Group(group.prompt, (group.completions[grades.index(max(grades))],))
