"""``-q`` and ``quiet=True`` hide progress and nothing that warns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import sharpen
from sharpen.cli.app import app
from sharpen.report.progress import NEAR_ZERO_LOSS, Console
from sharpen.system.note import Note
from tiny_runs import tiny_start_model, tiny_tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and in ``whole`` its run of six steps, with checkpoints of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("quiet")
    tree = tiny_tree(folder / "whole", tiny_start_model(folder / "model"), "sft", checkpoint={"best": None})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(app, ["run", str(folder / "recipe.yaml")])
    assert result.exit_code == 0, result.output
    assert "whole  step 6/6  loss" in result.stderr
    return folder


def without_its_end(folder: Path, to: Path) -> Path:
    """A copy of the run whose last checkpoint is damaged."""
    shutil.copytree(folder / "whole", to)
    weights = to / "checkpoints" / "step_000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return to


SKIPPED = "skipped a checkpoint: "


def test_a_quiet_run_says_what_warns(folder: Path, tmp_path: Path) -> None:
    run = without_its_end(folder, tmp_path / "run")
    quiet = CliRunner().invoke(app, ["run", "--resume", str(run), "-q"])
    assert quiet.exit_code == 0, quiet.output
    [line] = quiet.stderr.splitlines()
    assert line.startswith(f"{SKIPPED}{run / 'checkpoints' / 'step_000006' / 'model.safetensors'}: ")
    assert str(run / "plot.png") in quiet.stdout

    loud = without_its_end(folder, tmp_path / "loud")
    lines = CliRunner().invoke(app, ["run", "--resume", str(loud)]).stderr.splitlines()
    assert lines[0].startswith(SKIPPED)
    assert lines[1] == f"continuing from {loud / 'checkpoints' / 'step_000004'}"
    assert lines[-1].startswith("loud  step 6/6  loss ")


def test_in_python_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = without_its_end(folder, tmp_path / "run")
    assert sharpen.resume(run, quiet=True).finished
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.startswith(SKIPPED)
    assert sharpen.resume(run, quiet=True).finished
    assert capsys.readouterr().err == ""


def test_what_goes_as_planned_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        with Console("run", total=1, quiet=quiet) as console:
            console.say(Note("as planned"))
            console.say("doubtful")
            console.log(1, {"loss": 0.0, "ratio/mean": 1.0, "reward/mean": 0.5})
        lines = capsys.readouterr().err.splitlines()
        if quiet:
            assert lines == ["doubtful"]
        else:
            assert lines[:3] == ["as planned", "doubtful", NEAR_ZERO_LOSS]
            assert lines[3].startswith("run  step 1/1  reward 0.500")
