"""The base class of rule-based rewards."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from sharpen.settings import Settings
from sharpen.types import Row


class Verifier(Settings):
    """Settings and a check: ``verifier(completion, **row)`` returns the reward.

    An unknown setting raises `pydantic.ValidationError`.
    """

    name: ClassVar[str]
    has_answer: ClassVar[bool] = False
    at_once: ClassVar[int] = 1
    """Number of concurrent calls that pay off, as calls wait for another process or machine."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the check reads."""
        return ()

    def answer(self, completion: str) -> str | None:
        """The answer for majority voting; None if the completion has none."""
        return None

    def reference(self, row: Row) -> str | None:
        """A completion with the row's reference answer, for `sharpen reward check`; None if the row has none."""
        return None

    def doubt(self, row: Row) -> str | None:
        """Why no completion could be right for this row, for `sharpen reward check`; None if there is no doubt."""
        return None

    @abstractmethod
    def __call__(self, completion: str, **row: Any) -> float:
        """The reward of ``completion``; ``row`` holds the columns of its data row."""


def reference_text(row: Row, column: str) -> str:
    """The expected answer in ``column`` as text. Raises ValueError if the row has none."""
    text = text_of(row, column)
    if text is None:
        raise ValueError(f"the column {column!r} of this row is empty")
    return text


def text_of(row: Row, column: str) -> str | None:
    """The content of ``column`` as text; None if it is missing or blank."""
    value = row.get(column)
    return None if value is None or not str(value).strip() else str(value)
