"""What `sharpen reward check` does."""

from __future__ import annotations

from pydantic import Field, field_validator

from sharpen.errors import RewardError
from sharpen.rewards.checking.allowed import refuse_unknown
from sharpen.settings import Settings


class RewardCheckSettings(Settings):
    """What `sharpen reward check` does with the reward; a run itself does not read it."""

    rows: int = Field(100, ge=1, description="rows whose right and wrong answers are tried, evenly spaced")
    cheat_rows: int = Field(25, ge=1, description="rows of these on which the cheats are tried")
    reference: str | None = Field(None, description="the column of completions that ought to get a full reward")
    allow: tuple[str, ...] = Field((), description="cheats that may pass")
    timeout_s: float = Field(10.0, gt=0, description="after so long without an answer, a call of the reward is ended")

    @field_validator("allow")
    @classmethod
    def _known(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        try:
            refuse_unknown(allow)
        except RewardError as error:
            raise ValueError(str(error)) from error
        return allow
