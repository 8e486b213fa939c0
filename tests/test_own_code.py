"""Whatever a reward does to the process it is called in, exit codes mean what docs/runs.md says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from one_thread import one_thread
from sharpen.cli.app import app
from sharpen.launch.run import start
from tiny_runs import Raising, tiny_recipe, tiny_start_model

__all__ = ["one_thread"]

WAIT_S = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("own_code") / "model")


def recipe_with(folder: Path, model: Path, source: str, **changes: Any) -> list[str]:
    """The arguments of a run of six steps whose reward is the function ``f`` of this module; paths are relative."""
    (folder / "own.py").write_text(source)
    call = changes.pop("call", {})
    reward = {"name": "own.py:f", "call": call} if call else "own.py:f"
    recipe = tiny_recipe(Path("run"), model, "grpo", reward=reward, **changes)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return ["run", "recipe.yaml"]


def in_process(folder: Path, arguments: list[str], **options: Any) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", "from sharpen.cli.app import main; main()", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def finished(folder: Path, arguments: list[str]) -> tuple[int, str, str]:
    process = in_process(folder, arguments)
    try:
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    return process.returncode, out, " ".join(err.split())


def test_a_reward_that_exits_is_one_that_failed(model: Path, tmp_path: Path) -> None:
    code, out, said = finished(tmp_path, recipe_with(tmp_path, model, "import sys\ndef f(c, **row): sys.exit()\n"))
    assert (code, out) == (2, "")
    assert said.startswith("the reward failed for 12 of 12 completions, more than the rate of 0.1 allows. The first: ")
    assert said.endswith(": f raised SystemExit: (own.py, line 2)")


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Result:
    monkeypatch.chdir(folder)
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


RAISED = {
    "raise SystemExit(0)": "SystemExit: 0",
    "raise KeyboardInterrupt": "KeyboardInterrupt: ",
    "raise GeneratorExit": "GeneratorExit: ",
    "import asyncio; raise asyncio.CancelledError": "CancelledError: ",
    "raise StopIteration": "StopIteration: ",
    "import typer; raise typer.Exit(0)": "Exit: ",
    "import typer; raise typer.Abort()": "Abort: ",
    "import click; raise click.exceptions.Exit(0)": "Exit: ",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)": "ValueError: signal only works in main thread",
}


@pytest.mark.parametrize("body", RAISED)
def test_what_no_exception_handler_expects(
    body: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call(tmp_path, monkeypatch, recipe_with(tmp_path, model, f"def f(completion, **row):\n    {body}\n"))
    assert result.exit_code == 2, result.output
    assert f": f raised {RAISED[body]}" in " ".join(result.stderr.split())


def test_failures_that_are_allowed_are_recorded(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "calls = 0\ndef f(completion, **row):\n    global calls\n    calls += 1\n    "
    source += "if calls % 16 == 0: raise SystemExit(0)\n    return float('1' in completion)\n"
    result = call(tmp_path, monkeypatch, recipe_with(tmp_path, model, source, evaluation={"every": 0}, **NO_BEST))
    assert result.exit_code == 0, result.output
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["reward/failed"] for row in metrics] == [1 / 16] * 6


NO_BEST = {"checkpoint": {"best": None}}

MEDDLING = """
import os, sys, time

def f(completion, **row):
    print("seen")
    os.chdir("/")
    os.environ.clear()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is not None:
            getattr(sys, name).close()
    sys.stdout = sys.stderr = None
    return sum(c.isdigit() for c in completion) / 8
"""


def test_closed_streams_another_folder_and_no_environment(model: Path, tmp_path: Path) -> None:
    """The run goes to its end, where it was to be written, and says so."""
    code, out, said = finished(tmp_path, recipe_with(tmp_path, model, MEDDLING))
    assert code == 0, said
    assert "checkpoints/step_000006" in out
    assert "step 6/6" in said
    assert (tmp_path / "run" / "checkpoints" / "step_000006" / "manifest.json").exists()
    assert (tmp_path / "run" / "plot.png").exists()


ALARMING = """
import signal, time

def ring(signum, frame):
    raise TimeoutError

signal.signal(signal.SIGALRM, ring)
signal.signal(signal.SIGINT, signal.SIG_IGN)

def f(completion, **row):
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.03)
    return sum(c.isdigit() for c in completion) / 8
"""


def test_an_alarm_neither_kills_the_run_nor_interrupts_it(model: Path, tmp_path: Path) -> None:
    """The handlers that its module has set are not those of the training process; Ctrl-C is answered all the same."""
    process = in_process(tmp_path, recipe_with(tmp_path, model, ALARMING, training={"steps": 1000}))
    try:
        patience = time.monotonic() + WAIT_S
        while not (tmp_path / "run" / "checkpoints" / "step_000002").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.count("a reward set an alarm") == 1
    assert f"sharpen run --resume {Path('run')}" in said


def test_a_script_without_a_main_guard(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ending in ("import sys; sys.exit()", "import typer; raise typer.Exit(0)"):
        arguments = recipe_with(tmp_path, model, f"def f(completion, **row): return 1.0\n{ending}\n")
        for command in (arguments, ["reward", "check", "recipe.yaml"], [*EVAL, str(model)]):
            result = call(tmp_path, monkeypatch, command)
            assert (result.exit_code, result.stdout) == (2, "")
            said = " ".join(result.stderr.split())
            assert "reward 'own.py:f': importing 'own.py' ends the program with " in said
            assert "(own.py, line 2)" in said
            assert '`if __name__ == "__main__":`' in said
        assert not (tmp_path / "run").exists()


EVAL = ["eval", "--reward", "own.py:f", "--n", "2", "--max-new-tokens", "4", "--task", "sums", "--prompts", "2"]

ANSWERING = """
import typer

def f(completion, **row):
    return 1.0

def answer(completion):
    raise typer.Exit(0)

f.answer = answer
"""


def test_what_is_called_in_the_main_thread(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that votes are counted on, in an evaluation within a run and alone."""
    arguments = recipe_with(tmp_path, model, ANSWERING, evaluation={"n": 2, "k": [1, 2]})
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+2="}\n')
    measure = ["eval", str(model), "--data", "rows.jsonl", "--reward", "own.py:f", "--n", "8", "--max-new-tokens", "4"]
    for command in (arguments, measure):
        result = call(tmp_path, monkeypatch, command)
        assert result.exit_code == 2, result.output
        said = " ".join(result.stderr.split())
        assert said.startswith("code that was called ends the program with Exit: ")
        assert said.endswith("(own.py, line 8)")


def test_a_logger_that_exits(model: Path, tmp_path: Path) -> None:
    recipe, said = tiny_recipe(tmp_path / "run", model, "sft"), []
    exiting = Raising(lambda step: step == 2, lambda: sys.exit(0))
    assert start(recipe, loggers=[exiting], say=said.append).finished
    [line] = [line for line in said if "logger" in line]
    assert line.startswith("logger Raising: log of step 2 failed: SystemExit: 0 (test_own_code.py, line ")


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("sys.exit()", "f raised SystemExit: (own.py, line 4)"),
        ("os._exit(0)", "f raised WorkerEnded: process_program.py ended with status 0"),
    ],
)
def test_in_a_process_of_its_own_nothing_ends_the_run(
    ending: str, said: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        f"import os, sys\ndef f(completion, **row):\n    if len(completion) > 2:\n        {ending}\n    return 1.0\n"
    )
    arguments = recipe_with(tmp_path, model, source, call={"process": True})
    result = call(tmp_path, monkeypatch, arguments)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())


def test_ctrl_c_while_a_reward_runs_is_ctrl_c(model: Path, tmp_path: Path) -> None:
    source = "import time\ndef f(completion, **row):\n    time.sleep(0.02)\n    return completion.count('1')\n"
    process = in_process(tmp_path, recipe_with(tmp_path, model, source, training={"steps": 1000}))
    try:
        patience = time.monotonic() + WAIT_S
        while not (tmp_path / "run" / "samples" / "step_000002.parquet").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "f raised" not in said
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (tmp_path / "run" / "checkpoints" / f"step_{last:06d}").exists()
