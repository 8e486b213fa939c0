"""Settings of `sharpen reward check`."""

from __future__ import annotations

from pydantic import Field, field_validator

from sharpen.errors import RewardError
from sharpen.rewards.checking.allowed import refuse_unknown
from sharpen.settings import Name, Seconds, Settings


class RewardCheckSettings(Settings):
    """Settings of `sharpen reward check`; a run does not read them."""

    rows: int = Field(100, ge=1)
    """Number of rows on which right and wrong answers are tried, evenly spaced."""
    cheat_rows: int = Field(25, ge=1)
    """Number of these rows on which cheats are tried."""
    reference: Name | None = None
    """The column of completions that should get a full reward; null: the reward's or the task's own references."""
    allow: tuple[str, ...] = ()
    """Cheats that may pass."""
    timeout_s: Seconds = 10.0
    """A call of the reward is ended after this many seconds."""

    @field_validator("allow")
    @classmethod
    def _known(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        try:
            refuse_unknown(allow)
        except RewardError as error:
            raise ValueError(str(error)) from error
        return allow
