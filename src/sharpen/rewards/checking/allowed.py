"""What a recipe may allow."""

from __future__ import annotations

from collections.abc import Collection

from sharpen.errors import RewardError
from sharpen.rewards.checking.cheats import CHEATS
from sharpen.suggest import did_you_mean

NO_REFERENCE = "no_reference"
"""What is allowed for a reward whose right answers nobody can name."""

ALLOWED = (*CHEATS, NO_REFERENCE)
"""What a recipe may allow."""


def refuse_unknown(allow: Collection[str]) -> None:
    """Raises RewardError for a name that cannot be allowed, with the nearest one that can."""
    for name in allow:
        if name not in ALLOWED:
            raise RewardError(f"there is no cheat {name!r} to allow.{did_you_mean(name, ALLOWED)}")
