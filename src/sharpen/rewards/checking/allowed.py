"""The names that a recipe may allow."""

from __future__ import annotations

from collections.abc import Collection

from sharpen.errors import RewardError
from sharpen.rewards.checking.cheats import CHEATS
from sharpen.suggest import did_you_mean

NO_REFERENCE = "no_reference"
"""Allows rows without a reference, for rewards without known right answers."""

ALLOWED = (*CHEATS, NO_REFERENCE)
"""All names that a recipe may allow."""


def refuse_unknown(allow: Collection[str]) -> None:
    """Raises RewardError for an unknown name, with the nearest known one."""
    for name in allow:
        if name not in ALLOWED:
            raise RewardError(f"there is no cheat {name!r} to allow.{did_you_mean(name, ALLOWED)}")
