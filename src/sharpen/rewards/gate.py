"""No format, no points: a reward without which the others do not count."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from sharpen.settings import Settings


class Gate(Settings):
    """Closed where the reward is less than ``at_least``: the total is then ``otherwise``, whatever the others say.

    In a recipe also ``true``, which is the gate as it is by default, or a number, which is ``at_least``.
    """

    at_least: float = 1.0
    """The least value of the reward with which the others count."""
    otherwise: float = 0.0
    """The total where the gate is closed."""
    skip: bool = False
    """Do not compute the other rewards where the gate is closed; they are then not logged for these completions."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if given is True:
            return {}
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            return {"at_least": given}
        return given

    def closed(self, value: float | None) -> bool:
        """A reward that does not apply closes nothing."""
        return value is not None and value < self.at_least
