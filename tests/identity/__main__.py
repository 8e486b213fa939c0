"""Whether two versions of sharpen train the same bits: ``python tests/identity [BASE]``.

Does a fixed set of small runs with this tree and with the commit ``BASE``, in a work tree of its own, on this machine,
and compares what they leave behind: weights, optimizer state, samples, metric values. `renamed.py` says what has
another name since then. Exits with 1 and names what differs, if anything does. Takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

TREE = Path(__file__).parents[2]
sys.path[:0] = [str(TREE / "tests"), str(TREE / "src")]

from identity import renamed  # noqa: E402
from identity.cases import REWARDS, cases, recipe  # noqa: E402
from identity.contents import Renames, contents, differences  # noqa: E402
from identity.work_tree import work_tree  # noqa: E402
from sharpen.methods import METHODS  # noqa: E402
from tiny_runs import tiny_start_model  # noqa: E402

RUNNER = Path(__file__).with_name("run_recipes.py")
TIMEOUT_S = 1800.0
MOST_LINES = 12


def main() -> int:
    known = cases(list(METHODS))
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("base", nargs="?", default=renamed.BASE, help="a commit (default: %(default)s)")
    options.add_argument("--case", action="append", choices=known, help="only this one; may be repeated")
    asked = options.parse_args()
    names = asked.case or list(known)
    with tempfile.TemporaryDirectory() as folder, work_tree(asked.base) as base:
        place = Path(folder)
        model = tiny_start_model(place / "model")
        rewards = place / "rewards.py"
        rewards.write_text(REWARDS, encoding="utf-8")
        runs = {}
        for which, tree, settings in (("before", base, renamed.SETTINGS), ("now", TREE, {})):
            trees = {n: recipe(n, *known[n], folder=place / which, model=model, rewards=rewards) for n in names}
            runs[which] = {name: Path(one["run"]) for name, one in trees.items()}
            written = [_written(place / which / f"{i}.yaml", one, settings) for i, one in enumerate(trees.values())]
            _run(tree, written)
        renames = Renames(
            renamed.FILES, renamed.METRICS, renamed.COLUMNS, renamed.STATE, renamed.TENSORS, renamed.RECOMPUTED
        )
        differing = 0
        for name in names:
            before, now = (
                contents(runs["before"][name], renames),
                contents(runs["now"][name], Renames(recomputed=renamed.RECOMPUTED)),
            )
            lines = [
                line
                for line in differences(before, now)
                if not any(f"/{c}:" in line for c in renamed.REDEFINED) and not line.startswith(renamed.ADDED)
            ]
            print(f"{name}: {f'{len(lines)} of' if lines else 'the same'} {len(now)} values{' differ' * bool(lines)}")
            for line in lines[:MOST_LINES]:
                print(f"    {line}")
            differing += bool(lines)
        print(f"{len(names) - differing} of {len(names)} runs are the same, bit by bit, as with {asked.base}")
        return 1 if differing else 0


def _written(path: Path, tree: dict[str, Any], settings: Mapping[str, str]) -> Path:
    """The recipe as a file, its settings under the names that they had before."""
    for old, new in settings.items():
        _rename(tree, new.split("."), old.split("."))
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def _rename(tree: dict[str, Any], name: Sequence[str], to: Sequence[str]) -> None:
    section = tree
    for part in name[:-1]:
        section = section.get(part, {})
    if name[-1] in section:
        value = section.pop(name[-1])
        for part in to[:-1]:
            tree = tree.setdefault(part, {})
        tree[to[-1]] = value


def _run(tree: Path, recipes: Sequence[Path]) -> None:
    subprocess.run(
        [sys.executable, str(RUNNER), str(tree), *map(str, recipes)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=TIMEOUT_S,
    )


if __name__ == "__main__":
    sys.exit(main())
