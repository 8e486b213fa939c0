"""What a run pays for its page: the second stage of `sharpen demo`, with this tree and with an older one, taking turns.

    python benchmarks/page_cost.py BASE runs/demo/sft

A turn is a process that trains 20 steps with an evaluation every 10 and tokens every 20, as the demo does. Its time is
from the end of the first step to the end of the last, everything that is written in between included. Prints the
geometric mean of the ratio (this tree over BASE) of turns that follow each other, and its 95 % interval.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev

from contestants import ROOT

sys.path.append(str(ROOT / "tests"))

from identity.work_tree import work_tree

TURN = """
import sys, time
from importlib.resources import as_file, files
from sharpen.launch.run import start
from sharpen.recipe.loading import load_recipe

model, run = sys.argv[1:]
ends = []
with as_file(files("sharpen.pipelines") / "demo_grpo.yaml") as recipe:
    start(
        load_recipe(recipe, [f"run={run}", f"model={model}", "training.steps=20"]),
        on_step=lambda step, metrics: ends.append(time.perf_counter()),
    )
print(ends[-1] - ends[0])
"""


def turn(tree: Path, model: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", TURN, str(model), f"{folder}/run"],
            env={"PYTHONPATH": str(tree / "src"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2"},
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
        )
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit")
    parser.add_argument("model", type=Path, help="the run of the demo's first stage")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of turns")
    options = parser.parse_args()
    ratios = []
    with work_tree(options.base) as base:
        for pair in range(options.pairs):
            # Whoever comes first finds the machine as the turn before has left it: they change places.
            order = (ROOT, base) if pair % 2 else (base, ROOT)
            seconds = {tree: turn(tree, options.model.resolve()) for tree in order}
            ratios.append(math.log(seconds[ROOT] / seconds[base]))
            print(f"{seconds[ROOT]:.2f} s, {seconds[base]:.2f} s", flush=True)
    half = 2.0 * stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    low, mean, high = (math.exp(x) for x in (fmean(ratios) - half, fmean(ratios), fmean(ratios) + half))
    print(f"this tree over {options.base}: {mean:.4f} [{low:.4f}, {high:.4f}], {len(ratios)} pairs")


if __name__ == "__main__":
    main()
