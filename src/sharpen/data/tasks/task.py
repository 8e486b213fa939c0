"""The task interface: training problems, held-out problems, and a verifier."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Protocol

from pydantic import Field

from sharpen.data.rows import Rows, RowSequence
from sharpen.types import Row

RowCount = Annotated[int, Field(ge=1, le=10_000_000)]
"""How many rows a task makes, all of which are in memory."""


class Task(Protocol):
    """Problems with a verifier. No held-out problem is ever among what is trained on."""

    @property
    def name(self) -> str: ...

    @property
    def answer(self) -> Callable[[str], str | None] | None:
        """Extracts the answer that majority voting compares, None if there is none; None if the task has no answers."""

    def train_rows(self) -> Rows:
        """Training rows: ``prompt`` and the columns that ``verify`` takes."""

    def held_out_rows(self) -> Rows:
        """Rows like those of ``train_rows``, for held-out problems."""

    def demonstrations(self) -> Rows | None:
        """Rows with ``prompt`` and ``completion`` for supervised fine-tuning; None if the task has none."""

    def preferences(self) -> Rows | None:
        """Rows with ``prompt``, ``chosen`` and ``rejected`` for training problems; None if the task has none."""

    def held_out_preferences(self) -> Rows | None:
        """The same for held-out problems."""

    def step_labels(self) -> Rows | None:
        """Rows with ``prompt``, ``steps`` and ``labels`` for training problems; None if the task has none."""

    def held_out_step_labels(self) -> Rows | None:
        """The same for held-out problems."""

    def reference(self, row: Row) -> str | None:
        """A completion of the row that ``verify`` accepts, or None."""

    @property
    def verify(self) -> Callable[..., float]:
        """The task's reward, ``verify(completion, **row)``: 1 for correct, 0 for wrong."""


class PromptsOnly:
    """Base class of tasks without demonstrations, preferences or step labels."""

    def demonstrations(self) -> None:
        return None

    def preferences(self) -> None:
        return None

    def held_out_preferences(self) -> None:
        return None

    def step_labels(self) -> None:
        return None

    def held_out_step_labels(self) -> None:
        return None


def task_rows(task: str, part: str, rows: RowSequence) -> Rows:
    """A task's rows, with the name used in error messages and the prefix of row ids."""
    return Rows(f"{task} ({part})", f"{task}/{part.replace(' ', '_')}", tuple(rows[0]), rows)


def is_held_out(problem: str, share: float) -> bool:
    """Whether a problem is in the held-out split. Depends only on its text, not on what else is sampled."""
    digest = blake2b(problem.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
