"""A reward model's scores are determined up to a constant; after training they are shifted to average 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharpen.data.collate import collate
from sharpen.errors import CheckpointError, NonFiniteError
from sharpen.models.adapter_files import find_adapter
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.lora import add_adapter_like, read_adapter
from sharpen.models.model import Model
from sharpen.models.saved_dtype import saved_dtype
from sharpen.models.scorer import Scorer, load_scorer, normalise_scores
from sharpen.runs.checkpoint import replace_model
from sharpen.runs.checkpoint_list import checkpoint_path, has_checkpoint, problem
from sharpen.runs.checkpoint_state import load_state
from sharpen.training.metrics import Metrics
from sharpen.types import Group

MOST_DEMONSTRATIONS = 1000
"""Demonstrations that the mean is taken over; its standard error is then 3 % of their standard deviation."""


@dataclass(frozen=True, slots=True)
class ScoreNormalisation:
    """Shifts the scores of reward models to average 0 on ``demonstrations``."""

    demonstrations: Sequence[Group]
    limits: MicrobatchLimits
    trust_remote_code: bool = False

    def centre(self, scorer: Model) -> Metrics:
        """Shift the scores in place; returns ``score/shifted_by``."""
        assert isinstance(scorer, Scorer)
        shifted_by = normalise_scores(scorer, collate(self.demonstrations[:MOST_DEMONSTRATIONS]), self.limits)
        if not math.isfinite(shifted_by):
            raise NonFiniteError(f"the reward model's mean score of the demonstrations is {shifted_by:g}")
        return {"score/shifted_by": shifted_by}

    def normalise_saved(self, checkpoint: Path, like: Model) -> None:
        """Shift the reward model in a checkpoint from before the last step, and record the shift in its state.

        ``like`` is a model of the same kind. Raises CheckpointError if the checkpoint is damaged.
        """
        assert isinstance(like, Scorer)
        if (damage := problem(checkpoint)) is not None:
            raise CheckpointError(f"{damage}; to finish the run without this best checkpoint, remove {checkpoint}")
        adapter = find_adapter(str(checkpoint))
        saved = load_scorer(
            checkpoint if adapter is None else adapter.base,
            kind=like.kind,
            compute_dtype=like.compute_dtype,
            device=str(like.device),
            trust_remote_code=self.trust_remote_code,
        )
        if adapter is not None:
            add_adapter_like(saved, like)
            read_adapter(saved, adapter)
        metrics = self.centre(saved)
        replace_model(checkpoint, saved, {"shifted_by": metrics["score/shifted_by"]}, saved_dtype(checkpoint))


def best_to_normalise(checkpoints: Path, last: Mapping[str, Any]) -> Path | None:
    """The best checkpoint of a run, if its scores still have to be shifted; ``last`` is the last checkpoint's state.

    It is shifted after the last checkpoint is written: until then, a killed run may have to resume from the best one,
    with its original weights.
    """
    best = last["best"]
    if last.get("shifted_by") is None or best is None or best["step"] >= last["step"]:
        return None
    # If somebody removed the checkpoint, there is nothing to do.
    if not has_checkpoint(checkpoints, best["step"]):
        return None
    checkpoint = checkpoint_path(checkpoints, best["step"])
    return None if _is_shifted(checkpoint) else checkpoint


def _is_shifted(checkpoint: Path) -> bool:
    try:
        return load_state(checkpoint).get("shifted_by") is not None
    except CheckpointError:
        # `normalise_saved` says what is damaged, and how to go on without it.
        return False


def best_of(ranked: Sequence[Group]) -> tuple[Group, ...]:
    """The completion with the highest grade of each group, as a demonstration."""
    return tuple(_best(group) for group in ranked)


def _best(group: Group) -> Group:
    grades = [-torch.inf if s.total is None else s.total for s in group.scores]
    return Group(group.prompt, (group.trajectories[grades.index(max(grades))],))
