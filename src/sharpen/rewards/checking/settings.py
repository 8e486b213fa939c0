"""Settings of `sharpen reward check`."""

from __future__ import annotations

from pydantic import Field, field_validator

from sharpen.errors import RewardError
from sharpen.rewards.checking.allowed import refuse_unknown
from sharpen.settings import Name, Settings


class RewardCheckSettings(Settings):
    """Settings of `sharpen reward check`; a run does not read them."""

    rows: int = Field(100, ge=1, description="number of rows on which right and wrong answers are tried, evenly spaced")
    cheat_rows: int = Field(25, ge=1, description="number of these rows on which cheats are tried")
    reference: Name | None = Field(None, description="the column of completions that should get a full reward")
    allow: tuple[str, ...] = Field((), description="cheats that may pass")
    timeout_s: float = Field(10.0, gt=0, description="time limit for one call of the reward")

    @field_validator("allow")
    @classmethod
    def _known(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        try:
            refuse_unknown(allow)
        except RewardError as error:
            raise ValueError(str(error)) from error
        return allow
