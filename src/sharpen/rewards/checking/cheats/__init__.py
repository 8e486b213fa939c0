"""All cheats, one file for each kind. To add one, append it to its file's table."""

from sharpen.rewards.checking.cheats import code, formats, guesses, judges, nothing, values, wrong
from sharpen.rewards.checking.cheats.cheat import Attempts, Cheat

CHEATS: dict[str, Cheat] = {
    cheat.name: cheat for kind in (wrong, nothing, guesses, formats, values, judges, code) for cheat in kind.CHEATS
}

__all__ = ["CHEATS", "Attempts", "Cheat"]
