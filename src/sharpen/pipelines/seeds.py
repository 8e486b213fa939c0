"""One recipe with several seeds: an ordinary run for each, in a process of its own, one after another or side by side.

A process of its own for each, so that no run depends on what another left in memory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharpen.errors import RecipeError
from sharpen.launch.checks import check_before_writing
from sharpen.launch.inputs import read_inputs
from sharpen.launch.progress import Progress
from sharpen.launch.source_rows import Say
from sharpen.recipe.compare import differences
from sharpen.recipe.loading import load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.runs.folder import RunFolder
from sharpen.runs.loggers import MetricLogger
from sharpen.runs.metrics_file import row_of
from sharpen.runs.seeds import SeedsFolder
from sharpen.system.note import Note
from sharpen.system.signals import Request, stopped_after_step

POLL_S = 0.1
SAVING_S = 60.0
"""After the grace period of a signal, how long a process may take to write its checkpoint before it is killed."""
KILLED_AFTER_S = 10.0
"""After a second Ctrl-C, how long a process may take to end before it is killed."""

# sharpen is imported from where this process does, but after the standard library on sys.path.
_START = "import sys; sys.path.append(sys.argv.pop(1)); from sharpen.cli.seed_process import main; main()"
_HOME = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Outcome:
    """``failed`` has the exit code of each seed that failed; ``signum`` is the signal that stopped the others."""

    finished: tuple[int, ...]
    failed: Mapping[int, int]
    signum: int | None = None


def prepare(recipe: Recipe, count: int, *, locked: bool = True) -> SeedsFolder:
    """The folder of ``count`` runs with the recipe's seed, the next one, and so on; made, or that of the same recipe.

    Runs that did no step give way, if ``locked``. Everything that can be known without loading a model is checked
    before anything is written.

    Raises:
        SharpenError: the folder holds one run, runs of another recipe, or runs of more seeds; or something in the
            recipe cannot be used.
    """
    folder = SeedsFolder(recipe.run)
    seeds = range(recipe.seed, recipe.seed + count)
    idle: list[RunFolder] = []
    if folder.exists:
        if changes := _changes(folder, recipe):
            idle = [RunFolder(folder.run(seed)) for seed in folder.seeds()]
            if not locked or any(run.work() is not None for run in idle):
                said = ", ".join(f"{path} ({old} there, {new} here)" for path, old, new in changes)
                raise RecipeError(
                    f"{folder.path} holds runs of another recipe, which differs in {said}: give another `run`"
                )
        if more := [seed for seed in folder.seeds() if seed not in seeds]:
            raise RecipeError(
                f"{folder.path} also holds seed {', '.join(map(str, more))}: give --seeds "
                f"{max(more) + 1 - recipe.seed}, or remove {', '.join(str(folder.run(seed)) for seed in more)}"
            )
    else:
        RunFolder.refuse_existing(recipe.run, locked=locked)
        idle = [RunFolder(recipe.run)]
    check_before_writing(recipe, read_inputs(recipe))
    for run in idle:
        run.clear()
    folder.initialise(recipe.to_yaml(), seeds)
    return folder


def _changes(folder: SeedsFolder, recipe: Recipe) -> list[tuple[str, Any, Any]]:
    before, now = (r.model_dump(mode="json", exclude={"run"}) for r in (load_recipe(folder.recipe), recipe))
    return list(differences(before, now))


def run_seeds(
    folder: SeedsFolder,
    *,
    at_once: int = 1,
    logger: Callable[[int], MetricLogger],
    say: Say,
    trust_remote_code: bool = False,
    accept_changes: bool = False,
) -> Outcome:
    """Do the runs that are not finished, at most ``at_once`` side by side, which then share the processor's threads.

    A signal stops them all after their step, with a checkpoint; a second Ctrl-C stops them at once and raises
    `sharpen.system.signals.Stopped`. A run that fails stops no other. ``logger`` gives the logger of each
    seed's metrics. ``accept_changes`` is as in `sharpen.launch.run.resume`, for those that are resumed.
    """
    recipe = load_recipe(folder.recipe)
    seeds = folder.seeds()
    done = [seed for seed in seeds if Progress.of(RunFolder(folder.run(seed)), recipe.training.steps).finished]
    for seed in done:
        say(Note(f"seed {seed} is finished"))
    environment = _environment(min(at_once, len(seeds)))

    def start(seed: int) -> _Process:
        options = [
            *(["--trust-remote-code"] if trust_remote_code else []),
            *(["--accept-changes"] if accept_changes and RunFolder(folder.run(seed)).recipe.is_file() else []),
        ]
        return _Process(folder, seed, environment, logger(seed), options)

    runs = _Processes(start, deque(seed for seed in seeds if seed not in done), at_once, recipe.checkpoint.grace_s, say)
    # No limit here: each process has its own grace period.
    with stopped_after_step(runs, grace_s=None, say=say, how_to_continue=lambda: "") as request:
        codes = runs.run(request)
    failed = {seed: code for seed, code in codes.items() if code and not (request.signum and code >= 128)}
    return Outcome(tuple(seed for seed in seeds if seed in done or codes.get(seed) == 0), failed, request.signum)


def _environment(at_once: int) -> dict[str, str]:
    if at_once == 1:
        return dict(os.environ)
    threads = str(max(1, torch.get_num_threads() // at_once))
    return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


class _Process:
    """The process of one seed: ``sharpen run``, whose output goes to a file."""

    def __init__(
        self,
        folder: SeedsFolder,
        seed: int,
        environment: Mapping[str, str],
        logger: MetricLogger,
        options: Sequence[str],
    ) -> None:
        self.seed = seed
        self._metrics = RunFolder(folder.run(seed)).metrics
        self._logger = logger
        self._logged = -1
        command = [sys.executable, "-P", "-c", _START, _HOME, "run", *_arguments(folder, seed), *options]
        with folder.output(seed).open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to this process, which passes it on
            )

    def ended(self) -> int | None:
        """The exit code as a shell has it, or None while it runs; tells the logger of the latest step."""
        status = self._process.poll()
        self._log()
        if status is None:
            return None
        self._logger.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        return status if status >= 0 else 128 - status

    def send(self, signum: int) -> None:
        self._process.send_signal(signum)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _log(self) -> None:
        row = _last_row(self._metrics)
        if row is not None and row["step"] > self._logged:
            self._logged = int(row["step"])
            self._logger.log(self._logged, row)


class _Processes:
    """Starts and stops the processes; a signal handler sets ``stop_requested`` (`sharpen.system.signals.Stoppable`)."""

    def __init__(
        self,
        start: Callable[[int], _Process],
        waiting: deque[int],
        at_once: int,
        grace_s: float | None,
        say: Say,
    ) -> None:
        self.stop_requested = False
        self.saving = False
        self._start, self._waiting, self._at_once, self._grace_s, self._say = start, waiting, at_once, grace_s, say
        self._running: list[_Process] = []
        self._codes: dict[int, int] = {}

    def run(self, request: Request) -> dict[int, int]:
        """Run all; returns the exit codes of those that were started."""
        with self._none_left():
            while (self._waiting and not self.stop_requested) or self._running:
                if self.stop_requested:
                    self._stop(request)
                elif self._waiting and len(self._running) < self._at_once:
                    self._running.append(self._start(self._waiting.popleft()))
                else:
                    time.sleep(POLL_S)
                    self._reap()
        return self._codes

    def _reap(self) -> None:
        for process in list(self._running):
            if (code := process.ended()) is not None:
                self._running.remove(process)
                self._codes[process.seed] = code

    def _stop(self, request: Request) -> None:
        """Pass the signal on and wait; a first Ctrl-C waits for the step, however long, until the second."""
        signum = request.signum or signal.SIGINT
        for process in self._running:
            process.send(signum)
        limited = signum != signal.SIGINT and self._grace_s is not None
        ends_s = time.monotonic() + (self._grace_s or 0.0) + SAVING_S
        while self._running and (not limited or time.monotonic() < ends_s):
            time.sleep(POLL_S)
            self._reap()
        for process in self._running:
            self._say(f"seed {process.seed} did not end in time and is killed")
            process.kill()
        self._reap()

    @contextmanager
    def _none_left(self) -> Iterator[None]:
        """Whatever ends this, no process outlives it."""
        try:
            yield
        finally:
            for process in self._running:
                process.send(signal.SIGINT)
            ends_s = time.monotonic() + KILLED_AFTER_S
            while self._running and time.monotonic() < ends_s:
                time.sleep(POLL_S)
                self._reap()
            for process in self._running:
                process.kill()


def _arguments(folder: SeedsFolder, seed: int) -> Sequence[str]:
    run = folder.run(seed)
    if RunFolder(run).recipe.is_file():
        return ["--resume", str(run)]
    # A setting is read as YAML, of which JSON is a part.
    return [str(folder.recipe), f"run={json.dumps(str(run), ensure_ascii=False)}", f"seed={seed}"]


def _last_row(metrics: Path) -> dict[str, float] | None:
    """The last whole line of a ``metrics.jsonl`` that is being written; None if there is none yet."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65_536))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    # What follows the last line break is empty, or a line that is not whole yet. A damaged line shows no progress.
    row = row_of(lines[-2]) if len(lines) > 1 else None
    return None if isinstance(row, str) else row
