"""Whether this tree is as fast as another commit: a GRPO step of both, taking turns.

python benchmarks/versions.py BASE
python benchmarks/versions.py BASE --case tiny-64x64 --repetitions 50

Prints, for each case, the geometric mean of the ratio (this tree over BASE) of turns that follow each other, and its
95 % interval. BASE is checked out into a work tree of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from bench import play
from cases import CASES
from contestants import ROOT, Contestant
from lineup import OURS, dtype_of

sys.path.append(str(ROOT / "tests"))

from identity.work_tree import work_tree

TINY = [name for name in CASES if name.startswith("tiny")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit")
    parser.add_argument("--case", choices=list(CASES), action="append", help="only this one; may be given again")
    parser.add_argument("--repetitions", type=int, default=30, help="turns that count")
    options = parser.parse_args()
    with work_tree(options.base) as base, tempfile.TemporaryDirectory() as folder:
        for name in options.case or TINY:
            case = CASES[name]
            trees = (("base", base), ("this tree", ROOT))
            contestants = [
                Contestant(
                    who,
                    str(tree / "benchmarks" / "step_sharpen.py"),
                    OURS,
                    {"dtype": dtype_of(case)},
                    {"PYTHONPATH": str(tree / "src")},
                )
                for who, tree in trees
            ]
            before, now = play(case, "step", contestants, options.repetitions, Path(folder))
            seconds = [[turn["seconds"] for turn in one["turns"]] for one in (before, now)]
            low, middle, high = ratio(*seconds)
            print(
                f"{name}: {middle:.3f} times as long [{low:.3f}, {high:.3f}], {options.repetitions} turns", flush=True
            )


def ratio(before_s: Sequence[float], now_s: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of now / before over pairs, between the ends of its 95 % interval (normal, of logarithms)."""
    logs = [math.log(now / before) for before, now in zip(before_s, now_s, strict=True)]
    error = 1.96 * stdev(logs) / math.sqrt(len(logs))
    return math.exp(fmean(logs) - error), math.exp(fmean(logs)), math.exp(fmean(logs) + error)


if __name__ == "__main__":
    main()
