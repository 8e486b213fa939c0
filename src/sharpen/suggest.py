"""The nearest known name, for messages about an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence to go on with after an error message, beginning with a space; empty when nothing is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""
