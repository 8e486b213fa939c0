"""The nearest known name, for messages about an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence to go on with after an error message, beginning with a space; empty when nothing is near."""
    names = list(known)
    # A swap of letters, the commonest slip of all, is no nearer to difflib than another letter in their place.
    near = [name for name in names if sorted(name) == sorted(word)] or get_close_matches(word, names, n=1, cutoff=0.5)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""
