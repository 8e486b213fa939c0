"""Gates: a reward that decides whether the others count."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from sharpen.settings import Settings


class Gate(Settings):
    """Closed if the reward is less than ``at_least``: the total is then ``otherwise``, regardless of the other rewards.

    A recipe may also give ``true`` for the defaults, or a number for ``at_least``.
    """

    at_least: float = 1.0
    """Minimum value of the reward for the others to count."""
    otherwise: float = 0.0
    """The total if the gate is closed."""
    skip: bool = False
    """Do not compute, nor log, the other rewards for completions with a closed gate."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if given is True:
            return {}
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            return {"at_least": given}
        return given

    def closed(self, value: float | None) -> bool:
        """Whether the gate is closed; a reward that does not apply (None) leaves it open."""
        return value is not None and value < self.at_least
