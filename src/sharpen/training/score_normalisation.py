"""A reward model's scores are known up to a constant: in the end they are shifted to average 0 on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sharpen.data.collate import collate
from sharpen.errors import CheckpointError, NonFiniteError
from sharpen.models.adapter_files import find_adapter
from sharpen.models.lora import copy_sharing_frozen, read_adapter
from sharpen.models.model import Model
from sharpen.models.scorer import Scorer, load_scorer, normalise_scores
from sharpen.runs.checkpoint import checkpoint_path, load_state, problem, replace_model
from sharpen.training.metrics import Metrics
from sharpen.training.update import MicrobatchLimits
from sharpen.types import Group

LOOKED_AT = 1000
"""Demonstrations whose mean is taken; it is then known to 3 % of their spread."""


@dataclass(frozen=True, slots=True)
class ScoreNormalisation:
    """Centres scorers on the same demonstrations."""

    demonstrations: Sequence[Group]
    limits: MicrobatchLimits

    def centre(self, scorer: Model) -> Metrics:
        """Shift the scores in place, and say by how much."""
        assert isinstance(scorer, Scorer)
        taken = normalise_scores(
            scorer,
            collate(self.demonstrations[:LOOKED_AT]),
            tokens_per_microbatch=self.limits.tokens_per_microbatch,
            shared=self.limits.shared_prompt,
        )
        if not math.isfinite(taken):
            raise NonFiniteError(f"the reward model's mean score of the demonstrations is {taken:g}")
        return {"score/shifted_by": taken}

    def normalise_saved(self, checkpoint: Path, like: Model) -> None:
        """The same with the scorer in a checkpoint, one saved before the end; its state then says by how much.

        Raises CheckpointError if it is damaged.
        """
        assert isinstance(like, Scorer)
        if (damage := problem(checkpoint)) is not None:
            raise CheckpointError(f"{damage}; to finish the run without this checkpoint, the best, remove {checkpoint}")
        adapter = find_adapter(str(checkpoint))
        if adapter is None:
            saved = load_scorer(checkpoint, kind=like.kind, compute_dtype=like.compute_dtype, device=str(like.device))
        else:
            saved = replace(like, model=copy_sharing_frozen(like.model))
            read_adapter(saved, adapter)
        taken = self.centre(saved)
        replace_model(checkpoint, saved, {"shifted_by": taken["score/shifted_by"]})


def best_to_normalise(checkpoints: Path, last: Mapping[str, Any]) -> Path | None:
    """The best checkpoint of a run whose last one has this state, if it is an earlier one that is not centred yet.

    This comes after the last step's checkpoint: until that is there, a killed run may have to go on from the best,
    with the weights that it had.
    """
    best = last["best"]
    if last.get("shifted_by") is None or best is None or best["step"] >= last["step"]:
        return None
    checkpoint = checkpoint_path(checkpoints, int(best["step"]))
    # Whoever removed it does not need it centred.
    centred = not checkpoint.is_dir() or load_state(checkpoint).get("shifted_by") is not None
    return None if centred else checkpoint


def best_of(ranked: Sequence[Group]) -> tuple[Group, ...]:
    """The completion of each group that has the highest grade, as a demonstration."""
    return tuple(_best(group) for group in ranked)


def _best(group: Group) -> Group:
    grades = [-torch.inf if s.total is None else s.total for s in group.scores]
    return Group(group.prompt, (group.completions[grades.index(max(grades))],))
