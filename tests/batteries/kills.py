"""Runs that are killed, or whose disk fails, before every file operation, and compared with one that was never stopped.

    python tests/batteries/kills.py                  every method, every operation: more than a quarter of an hour
    python tests/batteries/kills.py --short          what the tests do: the cases that differ, and of the operations
                                                     within a folder that is not yet a checkpoint, and of the answers
                                                     between turns, one of a few
    python tests/batteries/kills.py "reward_model"   some cases

Where trajectories have several turns, they are killed before every answer to the policy too.

Each run dies in a process of its own, forked from this one, which has imported everything and run nothing.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TREE = Path(__file__).parents[2]
sys.path[:0] = [str(TREE / "tests"), str(TREE / "src")]

import torch  # noqa: E402

import tiny_turns  # noqa: E402
from batteries.children import REFUSED, in_child  # noqa: E402
from batteries.file_operations import Fault, FileOperations  # noqa: E402
from batteries.part import Outcome  # noqa: E402
from batteries.tiny_cases import CASES, Case, all_of, go_on, recipe_of, rewarded  # noqa: E402
from sharpen.launch.run import start  # noqa: E402
from sharpen.training.trainer import Trainer  # noqa: E402
from tiny_runs import given, tiny_start_model  # noqa: E402

WITHIN = 20
"""Of the operations within a folder under another name, the short form tries one in this many."""
ANSWER = "an answer between turns"


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


class Faults:
    """One case: its undisturbed run, and the folder that each disturbed run begins with."""

    def __init__(self, case: Case, folder: Path, model: Path, fault: Fault = Fault.KILLED) -> None:
        self.case, self.folder, self.model, self.fault = case, folder, model, fault
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
        names, counted = self.folder / "operations.json", self.folder / "counted"
        shutil.rmtree(counted, ignore_errors=True)

        def count() -> None:
            operations = self._watched(counted, None)
            go_on(counted, self.recipe)
            operations.counting = False
            names.write_text(json.dumps(operations.done))

        shutil.copytree(self.begun, counted)
        self._must(count)
        self._compare(counted)
        found: list[str] = json.loads(names.read_text())
        return found

    def disturb(self, number: int) -> None:
        """Have the fault at that operation, go on without one, and compare."""
        disturbed = self.folder / "disturbed"
        shutil.rmtree(disturbed, ignore_errors=True)
        shutil.copytree(self.begun, disturbed)

        def failing() -> None:
            self._watched(disturbed, number)
            go_on(disturbed, self.recipe)

        status = in_child(failing)
        if self.fault is Fault.KILLED:
            assert status == -signal.SIGKILL, f"it was to be killed, and ended with {status}"
        else:
            # What fails may be what a run can do without, such as the removal of a file.
            assert status in (REFUSED, 0), f"it ended with {status}"
        self._must(lambda: go_on(disturbed, self.recipe))
        self._compare(disturbed)

    def _watched(self, run: Path, fatal: int | None) -> FileOperations:
        operations = FileOperations(run, fatal, self.fault)
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


def disturbed(name: str, fault: Fault, one_of: int = 1) -> Outcome:
    """The fault at every operation of a case, or among many alike at one of so many."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        faults = Faults(CASES[name], folder, tiny_start_model(folder / "model"), fault)
        operations = faults.operations()
        numbers = [n for n, o in enumerate(operations, 1) if not (is_one_of_many(o) and n % one_of)]
        for number in numbers:
            outcome.cases += 1
            try:
                faults.disturb(number)
            except (AssertionError, TimeoutError) as error:
                outcome.failed(f"{name}: {fault} at {number} of {len(operations)}, {operations[number - 1]}: {error}")
    return outcome


def kills(short: bool, names: Sequence[str] = ()) -> Outcome:
    """Kills at every operation of the named cases, by default of all, or of those of the short form."""
    outcome = Outcome()
    for name in names or [name for name, case in CASES.items() if case.short or not short]:
        started = time.monotonic()
        found = disturbed(name, Fault.KILLED, WITHIN if short else 1)
        outcome += found
        took = time.monotonic() - started
        print(f"{name}: {found.cases} kills, {len(found.wrong)} of them not as never stopped, {took:.0f} s", flush=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in CASES if {name, name.partition(",")[0]} & set(arguments.cases)]
    if arguments.cases and not names:
        parser.error(f"no such case; known: {'; '.join(CASES)}")
    outcome = kills(arguments.short, names)
    print(f"{outcome.cases} kills, {len(outcome.wrong)} of them not as never stopped")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
