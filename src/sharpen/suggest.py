"""The nearest known name, for messages about an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence to append to an error message, beginning with a space; empty if no known name is near."""
    names = list(known)
    # Swapped letters, the most common slip, are no nearer to difflib than wrong ones.
    near = [name for name in names if sorted(name) == sorted(word)] or get_close_matches(word, names, n=1, cutoff=0.5)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""
