"""The base class of rule-based rewards."""

from __future__ import annotations

from abc import abstractmethod
from decimal import Decimal
from numbers import Number
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

    allowed_cheats: ClassVar[tuple[str, ...]] = ()
    """Cheats of `sharpen reward check` that are right answers to this verifier."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the check reads."""
        return ()

    @property
    def optional_columns(self) -> tuple[str, ...]:
        """Columns that the check reads where a row has them."""
        return ()

    def answer(self, completion: str) -> str | None:
        """The answer for majority voting; None if the completion has none."""
        return None

    def reference(self, row: Row) -> str | None:
        """A completion with the row's reference answer, for `sharpen reward check`; None if the row has none."""
        return None

    def doubt(self, row: Row, prompt: str) -> str | None:
        """Why no completion of this row could be right, after the text of its prompt; None if there is no doubt."""
        return None

    def check_row(self, row: Row) -> None:
        """Raises ValueError if no completion of this row can be checked; its `columns` are known to have values."""
        return

    @abstractmethod
    def __call__(self, completion: str, **row: Any) -> float:
        """The reward of ``completion``; ``row`` holds the columns of its data row.

        No completion makes it raise: one that cannot be judged by its own doing is `Refused`. What raises is a failure
        of the reward, or of the row.
        """


def reference_text(row: Row, column: str) -> str:
    """The expected answer in ``column`` as text.

    Raises ValueError if the row has none, and for what is neither a text nor a number, whose text nobody wrote.
    """
    value = row.get(column)
    if value is not None and not isinstance(value, str | Number):
        raise ValueError(
            f"the column {column!r} of this row must be a text or a number, not {type(value).__name__} "
            f"({repr(value)[:60]}): write the text that a right answer has"
        )
    text = text_of(row, column)
    if text is None:
        raise ValueError(f"the column {column!r} of this row is empty")
    return text


def text_of(row: Row, column: str) -> str | None:
    """The content of ``column`` as text; None if it is missing or blank."""
    value = row.get(column)
    if is_missing(value) or not str(value).strip():
        return None
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def is_missing(value: object) -> bool:
    """Whether a value is None, or NaN, which tables of numbers have in its place."""
    return value is None or (isinstance(value, Number) and value != value)
