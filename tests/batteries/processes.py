"""Several processes on one run: one writes it, others are refused, and whoever only reads sees whole things."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from batteries.children import REFUSED, in_child, start_child
from batteries.part import Outcome
from batteries.tiny_cases import CASES, all_of, go_on, recipe_of
from sharpen.errors import SharpenError
from sharpen.launch.handle import Run
from sharpen.launch.load import load
from sharpen.recipe.schema import Recipe
from tiny_runs import tiny_start_model

WAIT_S = 60.0
AT_ONCE = 4
RACES, SHORT_RACES = 20, 2
READS, SHORT_READS = 40, 4


def processes(short: bool) -> Outcome:
    """Starts at the same instant, a second writer, one that is stopped or killed, and readers meanwhile."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        recipe = recipe_of(CASES["grpo, lag of two"], folder / "whole", tiny_start_model(folder / "model"))
        assert in_child(lambda: go_on(folder / "whole", recipe)) == 0
        scene = _Scene(folder, recipe)
        for _ in range(SHORT_RACES if short else RACES):
            scene.check(outcome, scene.race)
        scene.check(outcome, scene.second_writer)
        scene.check(outcome, scene.readers, SHORT_READS if short else READS)
    return outcome


class _Scene:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.run, self.recipe, self.expected = folder / "shared", recipe, all_of(folder / "whole")

    def check(self, outcome: Outcome, act: Callable[..., int], *arguments: int) -> None:
        """Count what ``act`` tried; an AssertionError is what went wrong."""
        shutil.rmtree(self.run, ignore_errors=True)
        try:
            outcome.cases += act(*arguments)
        except (AssertionError, TimeoutError) as error:
            outcome.cases += 1
            outcome.failed(f"{act.__name__}: {error}")

    def race(self) -> int:
        """Several processes start the same run at once: one does it, the others are refused."""
        children = [start_child(self._go_on) for _ in range(AT_ONCE)]
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        done = ended.count(0)
        # Whoever comes after the end finds a finished run, which is no error.
        assert done >= 1, f"of {AT_ONCE} starts at once none ended well: {ended}"
        assert set(ended) <= {0, REFUSED}, f"starts at once ended with {ended}"
        self._compare()
        return AT_ONCE

    def second_writer(self) -> int:
        """A second process is refused while the first works, and while it is stopped; not after it was killed."""
        first = start_child(self._go_on)
        self._wait_for_step()
        os.kill(first, signal.SIGSTOP)
        refused = in_child(self._go_on)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        assert refused == REFUSED, f"beside a stopped process a second one ended with {refused}"
        assert (status := in_child(self._go_on)) == 0, f"after the first was killed it ended with {status}"
        self._compare()
        return 2

    def readers(self, reads: int) -> int:
        """A run is read while it is written: metrics, samples, the latest checkpoint as a model."""

        def read() -> None:
            run = Run.open(self.run)
            rows = run.metric_rows()
            steps = [row["step"] for row in rows]
            assert steps == sorted(set(steps)), f"steps {steps}"
            _ = run.samples(), run.held_out_samples()
            if run.checkpoint is not None:
                try:
                    load(run.checkpoint)
                except SharpenError:
                    # The run keeps one checkpoint, and may have removed this one meanwhile.
                    if run.checkpoint.exists():
                        raise

        first = start_child(self._go_on)
        self._wait_for_step()
        try:
            for _ in range(reads):
                assert (status := in_child(read)) == 0, f"reading meanwhile ended with {status}"
        finally:
            _, status = os.waitpid(first, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the run that was read ended otherwise than well"
        self._compare()
        return reads

    def _go_on(self) -> None:
        go_on(self.run, self.recipe)

    def _wait_for_step(self) -> None:
        patience = time.monotonic() + WAIT_S
        metrics = self.run / "metrics.jsonl"
        while not (metrics.exists() and any(json.loads(line)["step"] for line in metrics.read_text().splitlines())):
            assert time.monotonic() < patience, "no step within a minute"
            time.sleep(0.005)

    def _compare(self) -> None:
        found = all_of(self.run)
        differing = [name for name in self.expected | found if found.get(name) != self.expected.get(name)]
        assert not differing, f"not the same: {differing}"
