"""Runs killed before every file operation of their last step, resumed, and compared with one that was never stopped.

    python tests/kill_battery.py                  every method, every operation: more than a quarter of an hour
    python tests/kill_battery.py --short          what the tests do: the cases that differ, and of the operations within
                                                  a folder that is not yet a checkpoint, and of the answers between
                                                  turns, one of a few
    python tests/kill_battery.py "reward_model"   some cases

Where trajectories have several turns, they are killed before every answer to the policy too.

Each run dies by SIGKILL in a process of its own, forked from this one, which has imported everything and run nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch

import tiny_turns
from file_operations import FileOperations
from sharpen.launch.run import resume, start
from sharpen.methods import METHODS
from sharpen.recipe.schema import Recipe
from sharpen.runs.folder import read_metrics
from sharpen.training.trainer import Trainer
from tiny_runs import SETTINGS, digits, given, tiny_recipe, tiny_start_model, untimed

STEPS = 4
TIMEOUT_S = 120.0
WITHIN = 20
"""Of the operations within a folder under another name, the short form tries one in this many."""
ANSWER = "an answer between turns"

Counted = Literal["last step", "resume", "start"]
"""Where the operations are counted from."""


@dataclass(frozen=True)
class Case:
    """A recipe; ``best`` where the run must have had its best step, for the case to be what it is meant to be."""

    method: dict[str, Any]
    counted: Counted = "last step"
    changes: dict[str, Any] = field(default_factory=dict)
    best: int | None = None
    short: bool = False


WORSENING = {"optimizer": {"learning_rate": 0.1, "warmup_steps": 0, "schedule": "constant"}}
"""A reward model's loss on held-out pairs is then least in the middle."""
CENTRED = {**WORSENING, "checkpoint": {"best": "loss", "keep": 1}}
TURNS = {"rollout": tiny_turns.TURNS}
LORA = {"model": {"lora": {"rank": 2, "alpha": 4}}}
LAG = {"rollout": {"lag": 2}}
"""The run goes on from step 2, with the batches of steps 3 and 4 drawn."""
CASES: dict[str, Case] = {
    **{name: Case({"name": name, **SETTINGS.get(name, {})}) for name in METHODS if name != "reward_model"},
    "reward_model, the best is the latest": Case({"name": "reward_model"}, changes=CENTRED, best=2, short=True),
    "reward_model, the best lies before": Case(
        {"name": "reward_model"}, changes={**CENTRED, "checkpoint": {"best": "loss", "keep": 2, "every": 1}}, best=2
    ),
    "reward_model, adapter": Case({"name": "reward_model"}, changes={**CENTRED, **LORA}, best=2),
    "reward_model, resumed": Case({"name": "reward_model"}, "resume", CENTRED, best=2),
    "ppo, shared critic": Case({"name": "ppo", "critic": "shared"}),
    "grpo, adapter": Case({"name": "grpo", **SETTINGS["grpo"]}, changes=LORA),
    "grpo, average reference": Case({"name": "grpo", "kl": {"reference": "average", "decay": 0.7}}),
    "grpo, reset reference": Case({"name": "grpo", "kl": {"reference": "reset", "reset_every": 3}}),
    "grpo, lag": Case({"name": "grpo", "group_size": 4, "tis_cap": 2.0}, changes={"rollout": {"lag": 1}}),
    "grpo, lag of two": Case({"name": "grpo", "group_size": 4, "tis_cap": 2.0}, changes=LAG, short=True),
    "grpo, lag of two, from its start": Case(
        {"name": "grpo", "group_size": 2, "old": "rollout"}, "start", {**LAG, "checkpoint": {"every": 1, "keep": 9}}
    ),
    "dapo, lag of two": Case({"name": "dapo", **SETTINGS["dapo"], "tis_cap": 2.0}, changes=LAG),
    "grpo, from its start": Case({"name": "grpo", "group_size": 2}, "start", {"checkpoint": {"every": 1, "keep": 1}}),
    "grpo, turns": Case({"name": "grpo", **SETTINGS["grpo"]}, changes=TURNS, short=True),
    "gspo, turns": Case({"name": "gspo", **SETTINGS["gspo"]}, changes=TURNS),
    "ppo, turns": Case({"name": "ppo", **SETTINGS["ppo"]}, changes=TURNS),
    "grpo, turns drawn ahead": Case(
        {"name": "grpo", "group_size": 4, "old": "rollout"}, changes={"rollout": {**tiny_turns.TURNS, "lag": 1}}
    ),
    "rft, from its start": Case(
        {"name": "rft", **SETTINGS["rft"]},
        "start",
        {"training": {"steps": 1}, "evaluation": {"every": 0}, "checkpoint": {"best": None}},
        short=True,
    ),
}


def recipe_of(case: Case, run: Path, model: Path) -> Recipe:
    preferences = case.method["name"] in ("reward_model", "process_reward_model")
    answers = not preferences and case.changes.get("evaluation", {}).get("every") != 0
    settings: dict[str, Any] = {
        **({} if preferences else {"reward": "<given in Python>"}),
        "training": {"steps": STEPS, **case.changes.get("training", {})},
        "checkpoint": {"best": "loss" if preferences else "reward", "keep": 1, **case.changes.get("checkpoint", {})},
        "evaluation": {**({"n": 2} if answers else {}), **case.changes.get("evaluation", {})},
    }
    changes = {key: value for key, value in case.changes.items() if key not in settings}
    return tiny_recipe(run, model, case.method["name"], method=case.method, **settings, **changes)


def rewarded(recipe: Recipe) -> dict[str, Any]:
    """What is given in Python: a reward, where the method makes a policy."""
    return {} if recipe.reward is None else {"reward": digits}


def go_on(run: Path, recipe: Recipe) -> None:
    """What a person does with a run that was killed."""
    if (run / "recipe.yaml").exists():
        ended = resume(run, rewarded(recipe))
    else:
        ended = start(given(recipe.model_copy(update={"run": run}), rewarded(recipe)))
    assert ended.finished


def all_of(run: Path) -> dict[str, Any]:
    """Everything in the folder of a run, timings aside: names, and bytes of what has no times in it."""
    found: dict[str, Any] = {str(file.relative_to(run)): None for file in sorted(run.rglob("*"))}
    for name in found:
        if (name.startswith("checkpoints/") and (run / name).is_file()) or name == "kept.jsonl":
            found[name] = (run / name).read_bytes()
        elif name.endswith(".parquet"):
            found[name] = pq.read_table(run / name).to_pylist()
    return {**found, "metrics.jsonl": untimed(read_metrics(run))}


def in_child(work: Callable[[], None]) -> int:
    """The exit status of ``work`` in a forked process: 0, 1 if it raised, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - said here; nothing of it may go on in the parent's name
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    patience = time.monotonic() + TIMEOUT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > patience:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"a run did not end within {TIMEOUT_S:g} s")
        time.sleep(0.002)


def at_last_step(act: Callable[[], None]) -> None:
    """Have ``act`` called in this process when a run begins its last step, or goes on after it."""
    step, run = Trainer.train_step, Trainer.run

    def train_step(self: Trainer) -> Any:
        if self.step == self.training.steps:
            act()
        return step(self)

    def run_(self: Trainer) -> None:
        if self.step == self.training.steps:
            act()
        run(self)

    Trainer.train_step, Trainer.run = train_step, run_  # type: ignore[method-assign]


class Kills:
    """One case: its undisturbed run, and the folder that each killed run begins with."""

    def __init__(self, case: Case, folder: Path, model: Path) -> None:
        self.case, self.folder, self.model = case, folder, model
        self.recipe = recipe_of(case, folder / "whole", model)
        self._must(lambda: go_on(folder / "whole", self.recipe))
        self.expected = all_of(folder / "whole")
        if case.best is not None:
            last = f"checkpoints/step_{self.recipe.training.steps:06d}/trainer/state.json"
            assert json.loads(self.expected[last])["best"]["step"] == case.best
        self.begun = folder / "begun"
        if case.counted != "start":
            # As a run that has not been stopped leaves it when its last step begins.
            def until_last_step() -> None:
                at_last_step(lambda: os.kill(os.getpid(), signal.SIGKILL))
                start(given(self.recipe.model_copy(update={"run": self.begun}), rewarded(self.recipe)))

            assert in_child(until_last_step) == -signal.SIGKILL
        else:
            self.begun.mkdir()

    def operations(self) -> list[str]:
        """Those of the undisturbed rest of the run."""
        names = self.folder / "operations.json"

        def counted() -> None:
            operations = self._watched(self.folder / "counted", None)
            go_on(self.folder / "counted", self.recipe)
            operations.counting = False
            names.write_text(json.dumps(operations.done))

        shutil.copytree(self.begun, self.folder / "counted")
        self._must(counted)
        self._compare(self.folder / "counted")
        found: list[str] = json.loads(names.read_text())
        return found

    def kill(self, number: int) -> None:
        """Die before that operation, go on, and compare."""
        dead = self.folder / "dead"
        shutil.rmtree(dead, ignore_errors=True)
        shutil.copytree(self.begun, dead)

        def dying() -> None:
            self._watched(dead, number)
            go_on(dead, self.recipe)

        status = in_child(dying)
        assert status == -signal.SIGKILL, f"it was to be killed, and ended with {status}"
        self._must(lambda: go_on(dead, self.recipe))
        self._compare(dead)

    def _watched(self, run: Path, fatal: int | None) -> FileOperations:
        operations = FileOperations(run, fatal)
        tiny_turns.before_answers.append(lambda: operations.other(ANSWER))
        if self.case.counted == "last step":
            at_last_step(operations.begin)
        else:
            operations.begin()
        return operations

    def _must(self, work: Callable[[], None]) -> None:
        status = in_child(work)
        assert status == 0, f"the run ended with {status}"

    def _compare(self, run: Path) -> None:
        found = all_of(run)
        assert found.keys() == self.expected.keys(), f"not the same files: {found.keys() ^ self.expected.keys()}"
        differing = [name for name, content in self.expected.items() if found[name] != content]
        assert not differing, f"not the same: {differing}"


def is_one_of_many(operation: str) -> bool:
    """Whether it is one of many alike: an answer, or in a folder that nobody takes for a checkpoint."""
    if operation.startswith(ANSWER):
        return True
    names = ("partial", "replaced", "removed")
    return operation.count("/") > 1 and any(f"checkpoints/.{name}_" in operation for name in names)


def battery(name: str, *, short: bool) -> tuple[int, list[str]]:
    """How many kills, and what went wrong."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        kills = Kills(CASES[name], folder, tiny_start_model(folder / "model"))
        operations = kills.operations()
        numbers = [n for n, o in enumerate(operations, 1) if not (short and is_one_of_many(o) and n % WITHIN)]
        for number in numbers:
            try:
                kills.kill(number)
            except (AssertionError, TimeoutError) as error:
                wrong.append(f"{name}: killed before {number} of {len(operations)}, {operations[number - 1]}: {error}")
                print(wrong[-1], flush=True)
    return len(numbers), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name, case in CASES.items() if case.short or not arguments.short]
    if arguments.cases:
        names = [name for name in CASES if {name, name.partition(",")[0]} & set(arguments.cases)]
        if not names:
            parser.error(f"no such case; known: {'; '.join(CASES)}")
    total, wrong = 0, 0
    for name in names:
        started = time.monotonic()
        kills, problems = battery(name, short=arguments.short)
        total, wrong = total + kills, wrong + len(problems)
        took = time.monotonic() - started
        print(f"{name}: {kills} kills, {len(problems)} of them not as never stopped, {took:.0f} s", flush=True)
    print(f"{total} kills, {wrong} of them not as never stopped")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
