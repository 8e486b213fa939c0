"""What an error message suggests: the nearest known name, or what else a name could mean."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal


def did_you_mean(word: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.5) -> str:
    """A sentence to append to an error message, beginning with a space; empty if no known name is near.

    ``cutoff`` is the least similarity, from 0 to 1.
    """
    names = list(known)
    # Swapped letters, the most common slip, are no nearer to difflib than wrong ones.
    near = [name for name in names if sorted(name) == sorted(word)] or get_close_matches(
        word, names, n=1, cutoff=cutoff
    )
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""


def could_be_hub_id(name: str) -> bool:
    """Whether the hub could have something of this name, ``organisation/name`` or an old ``name``: no path is one."""
    return name.count("/") <= 1 and not name.startswith((".", "/", "~"))


def folder_or_hub(name: str, kind: Literal["model", "dataset"]) -> str:
    """A sentence to append to an error about the folder ``name``: it hides what the hub may have under that name.

    Begins with a space; empty if the hub can have nothing of that name.
    """
    if not could_be_hub_id(name):
        return ""
    hiding = name if Path(name).is_dir() else Path(name).parts[0]
    option = " --repo-type dataset" if kind == "dataset" else ""
    return (
        f" If you mean a folder, write ./{name}. If you mean a {kind} on the hub, the folder {hiding} hides it: run "
        f"elsewhere, or fetch it with `hf download {name}{option} --local-dir {name}`"
    )
