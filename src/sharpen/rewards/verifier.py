"""The base of the rewards that check a completion by rule."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from sharpen.types import Row


class Verifier(BaseModel):
    """Settings and the check that they describe; ``verifier(completion, **row)`` gives the reward.

    An unknown setting is a `pydantic.ValidationError`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    has_answer: ClassVar[bool] = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the check reads."""
        return ()

    def answer(self, completion: str) -> str | None:
        """The answer that majority voting compares; None if the completion gives none."""
        return None

    def reference(self, row: Row) -> str | None:
        """A completion that gives the row's own answer, as `sharpen reward check` tries it; None if it has none."""
        return None

    @abstractmethod
    def __call__(self, completion: str, **row: Any) -> float:
        """The reward of ``completion``; ``row`` holds the columns of its data row."""


def reference_text(row: dict[str, Any], column: str) -> str:
    """The expected answer in ``column`` as text. Raises ValueError if the row has none."""
    text = text_of(row, column)
    if text is None:
        raise ValueError(f"the column {column!r} of this row is empty")
    return text


def text_of(row: Row, column: str) -> str | None:
    """What stands in ``column`` as text, None where nothing does."""
    value = row.get(column)
    return None if value is None or not str(value).strip() else str(value)
