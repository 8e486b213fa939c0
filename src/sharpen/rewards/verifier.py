"""The base of the rewards that check a completion by rule."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Verifier(BaseModel):
    """Settings and the check that they describe; ``verifier(completion, **row)`` gives the reward.

    An unknown setting is a `pydantic.ValidationError`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    has_answer: ClassVar[bool] = False
    at_once: ClassVar[int] = 1
    """Calls that may run at the same time, and gain by it: those that wait for another process or machine."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the check reads."""
        return ()

    def answer(self, completion: str) -> str | None:
        """The answer that majority voting compares; None if the completion gives none."""
        return None

    @abstractmethod
    def __call__(self, completion: str, **row: Any) -> float:
        """The reward of ``completion``; ``row`` holds the columns of its data row."""


def reference_text(row: dict[str, Any], column: str) -> str:
    """The expected answer in ``column`` as text. Raises ValueError if the row has none."""
    value = row.get(column)
    if value is None or not str(value).strip():
        raise ValueError(f"the column {column!r} of this row is empty")
    return str(value)
