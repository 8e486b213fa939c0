"""Runs that are stopped at random moments, again and again, and compared with one that was never stopped."""

from __future__ import annotations

import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from batteries.children import Sent, in_child
from batteries.part import Outcome
from batteries.tiny_cases import CASES, all_of, go_on, recipe_of, rewarded
from sharpen.launch.run import resume, start
from sharpen.recipe.schema import Recipe
from sharpen.runs.checkpoint_list import checkpoints
from sharpen.runs.folder import RunFolder, read_metrics
from sharpen.system.signals import Stopped
from tiny_runs import given, tiny_start_model

KILLS = 8
"""Of each case, in the full form."""
SHORT_KILLS = 4
SHORT = ("grpo", "dpo", "ppo")
MOST_IN_A_ROW = 3
"""So often is one run killed before it may go on to its end."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def random_kills(short: bool) -> Outcome:
    """SIGKILL at random moments of a run and of what goes on from it."""
    return _each_case(short, _kill)


def signals(short: bool) -> Outcome:
    """SIGINT, SIGTERM and SIGHUP at random moments: the step is finished and saved, or nothing has begun."""
    return _each_case(short, _stop)


Disturb = Callable[[Path, Recipe, float, random.Random], str | None]
"""Disturbs a run that has not begun, given the seconds that it takes; says what is wrong after that, if anything is."""


def _each_case(short: bool, disturb: Disturb) -> Outcome:
    outcome = Outcome()
    for name, case in CASES.items():
        if short and name not in SHORT:
            continue
        draw = random.Random(name)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            recipe = recipe_of(case, folder / "whole", tiny_start_model(folder / "model"))
            began = time.monotonic()
            assert in_child(lambda recipe=recipe, run=folder / "whole": go_on(run, recipe)) == 0
            takes_s = time.monotonic() - began
            expected = all_of(folder / "whole")
            for _ in range(SHORT_KILLS if short else KILLS):
                run = folder / "stopped"
                shutil.rmtree(run, ignore_errors=True)
                outcome.cases += 1
                problem = disturb(run, recipe, takes_s, draw)
                if problem is None and in_child(lambda recipe=recipe, run=run: go_on(run, recipe)) != 0:
                    problem = "it does not go on"
                if problem is None and all_of(run) != expected:
                    problem = "it ends otherwise than the run that was not stopped"
                if problem is not None:
                    outcome.failed(f"{name}: {problem}")
        print(f"{name}: done, {takes_s:.1f} s a run", flush=True)
    return outcome


def _kill(run: Path, recipe: Recipe, takes_s: float, draw: random.Random) -> str | None:
    for _ in range(draw.randint(1, MOST_IN_A_ROW)):
        status = in_child(lambda: go_on(run, recipe), Sent(signal.SIGKILL, draw.uniform(0, takes_s)))
        if status not in (0, -signal.SIGKILL):
            return f"it was to be killed, and ended with {status}"
    return None


def _stop(run: Path, recipe: Recipe, takes_s: float, draw: random.Random) -> str | None:
    signum = draw.choice(STOPPING)

    def work() -> None:
        try:
            if (run / "recipe.yaml").exists():
                resume(run, rewarded(recipe))
            else:
                start(given(recipe.model_copy(update={"run": run}), rewarded(recipe)))
        except (KeyboardInterrupt, Stopped):
            # Data and models were being loaded, or the last step was done and saved.
            return

    status = in_child(work, Sent(signum, draw.uniform(0, takes_s)))
    if status not in (0, -signum):
        return f"after {signal.Signals(signum).name} it ended with {status}"
    done = checkpoints(RunFolder(run).checkpoints)
    if (run / "metrics.jsonl").exists():
        steps = int(read_metrics(run)[-1]["step"])
        saved = json.loads((done[-1] / "manifest.json").read_text())["step"] if done else 0
        if steps != saved:
            return f"after {signal.Signals(signum).name} step {steps} is done and step {saved} is saved"
    return None
