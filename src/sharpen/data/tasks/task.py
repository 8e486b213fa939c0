"""What a task is: problems to train and to measure on, and a verifier of answers."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol

from sharpen.data.rows import Rows, RowSequence
from sharpen.types import Row


class Task(Protocol):
    """Problems with a verifier. No held-out problem is ever among what is trained on."""

    @property
    def name(self) -> str: ...

    @property
    def answer(self) -> Callable[[str], str | None] | None:
        """Completion → what majority voting compares, None where there is none; None for tasks without."""

    def train_rows(self) -> Rows:
        """Rows with a ``prompt`` and the columns that ``verify`` takes."""

    def held_out_rows(self) -> Rows:
        """Rows like those of ``train_rows``, of problems that are never trained on."""

    def demonstrations(self) -> Rows | None:
        """Rows with ``prompt`` and ``completion`` for supervised training, where the task has some."""

    def preferences(self) -> Rows | None:
        """Rows with ``prompt``, ``chosen`` and ``rejected`` of training problems, where the task has some."""

    def held_out_preferences(self) -> Rows | None:
        """The same of held-out problems."""

    def step_labels(self) -> Rows | None:
        """Rows with ``prompt``, ``steps`` and ``labels`` of training problems, where the task has some."""

    def held_out_step_labels(self) -> Rows | None:
        """The same of held-out problems."""

    def reference(self, row: Row) -> str | None:
        """A completion of the row that ``verify`` accepts; None if none is known."""

    @property
    def verify(self) -> Callable[..., float]:
        """The task's reward, ``verify(completion, **row)``: 1 for right, 0 for wrong."""


class PromptsOnly:
    """The base of a task that brings no completions to learn from."""

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
    """A task's rows under the name that errors and ids call them by."""
    return Rows(f"{task} ({part})", f"{task}/{part.replace(' ', '_')}", tuple(rows[0]), rows)


def is_held_out(problem: str, share: float) -> bool:
    """Whether a problem belongs to the held-out part: its text alone decides, whatever else is drawn."""
    digest = blake2b(problem.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
