"""How far a run has come: the checkpoint that it goes on from, and whether it is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.errors import CheckpointError
from sharpen.runs.checkpoint_check import Uses
from sharpen.runs.checkpoint_list import latest_sound, unlisted
from sharpen.runs.checkpoint_state import load_state
from sharpen.runs.folder import RunFolder
from sharpen.training.score_normalisation import best_to_normalise


@dataclass(frozen=True, slots=True)
class Progress:
    """``checkpoint`` is the latest sound one, with its ``state``; both are None before the first.

    ``damaged`` are later checkpoints, each with its problem; ``unlisted`` are folders that look like checkpoints and
    are none of this run's. ``all_steps`` says whether the last step is done, and ``finished`` whether everything that
    follows it is written as well.
    """

    folder: RunFolder
    checkpoint: Path | None
    state: Mapping[str, Any] | None
    damaged: Mapping[Path, str]
    unlisted: Sequence[Path]
    all_steps: bool
    finished: bool

    @classmethod
    def of(cls, folder: RunFolder, steps: int, uses: Uses = "everything") -> Progress:
        """The progress of a run of ``steps`` steps. Raises CheckpointError if its checkpoints cannot be read."""
        checkpoint, damaged = latest_sound(folder.checkpoints, uses)
        others = unlisted(folder.checkpoints)
        if checkpoint is None:
            return cls(folder, None, None, damaged, others, all_steps=False, finished=False)
        state = load_state(checkpoint)
        all_steps = state["step"] >= steps
        finished = all_steps and best_to_normalise(folder.checkpoints, state) is None
        return cls(folder, checkpoint, state, damaged, others, all_steps, finished)

    def refuse_damaged(self) -> None:
        """Raises CheckpointError if there are checkpoints and none is sound."""
        if self.checkpoint is None and self.damaged:
            raise CheckpointError(
                f"{self.folder.checkpoints}: no checkpoint is sound; remove the run to start it again"
            )
