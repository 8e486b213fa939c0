"""Every run ends with its report, which changes nothing of how the run ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit
from page_runs import Page
from sharpen.cli.app import app
from sharpen.errors import DataError, DiskError
from sharpen.launch.handle import Run
from sharpen.runs.folder import RunFolder
from tiny_runs import tiny_start_model, tiny_tree


def trained(path: Path, **changes: Any) -> Run:
    model = path / "model"
    if not model.exists():
        digit_model(model)
    arguments = {**SMALL, "run": path / "run", "quiet": True, **changes}
    return sharpen.train(model, {"name": "grpo", "group_size": 2}, ROWS, reward=first_digit, **arguments)


def command(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("at_end")
    tree = tiny_tree(folder / "run", tiny_start_model(folder / "model"), "grpo", training={"steps": 2})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return folder / "recipe.yaml"


def test_its_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    run = trained(tmp_path)
    page = Page(run.path / "report.html")
    [shown] = page.data["runs"]
    assert shown["status"] == "finished"
    assert (shown["glance"]["method"], shown["glance"]["step"], shown["glance"]["steps"]) == ("grpo", 2, 2)
    assert shown["series"]["values"]["reward/mean"] == [pytest.approx(x, rel=1e-6) for x in run.metrics["reward/mean"]]
    for step in (1, 2):
        samples = run.samples(step)
        groups = page.chunks()[f"training/{step}"]["groups"]
        assert len(groups) == 2
        rows = [one for group in groups for one in group["rows"]]
        assert [one["completion"] for one in rows] == list(samples["completion"])
        assert [one["reward"] for one in rows] == list(samples["reward"])
        assert [one["parts"]["first_digit"] for one in rows] == list(samples["reward/first_digit"])
        assert [one["row"] for one in rows] == [0, 1, 2, 3]
    assert str(run.path / "report.html") in run._repr_html_()


def test_train_says_where_it_is_unless_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, quiet=False)
    assert f"report: {run.path / 'report.html'}" in capsys.readouterr().err
    sharpen.resume(run, train_dataset=ROWS, reward=first_digit, quiet=True)
    assert capsys.readouterr().err == ""


def test_a_run_that_is_stopped_has_one_too(tmp_path: Path) -> None:
    run = trained(tmp_path, on_step=lambda step, metrics: False)
    assert not run.finished
    assert Page(run.path / "report.html").data["runs"][0]["status"] == "stopped"
    resumed = sharpen.resume(run, train_dataset=ROWS, reward=first_digit, quiet=True)
    assert resumed.finished
    [shown] = Page(run.path / "report.html").data["runs"]
    assert (shown["status"], shown["glance"]["step"]) == ("finished", 2)


@pytest.mark.parametrize(("signum", "written"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_after_a_signal(signum: signal.Signals, written: bool, tmp_path: Path) -> None:
    """A scheduler gives a run some seconds to save its weights, and none for more."""

    def send(step: int, metrics: object) -> None:
        if step == 1:
            os.kill(os.getpid(), signum)

    if written:
        assert not trained(tmp_path, on_step=send, training={"steps": 3, "prompts_per_step": 2}).finished
    else:
        with pytest.raises(SystemExit):
            trained(tmp_path, on_step=send, training={"steps": 3, "prompts_per_step": 2})
    assert (tmp_path / "run" / "report.html").exists() == written


def test_after_an_error_it_shows_the_steps_until_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(step: int, metrics: object) -> None:
        if step == 2:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        trained(tmp_path, on_step=fail, training={"steps": 3, "prompts_per_step": 2})
    file = tmp_path / "run" / "report.html"
    assert f"the steps until then: {file}" in capsys.readouterr().err
    assert Page(file).data["runs"][0]["glance"]["step"] == 2


def test_what_is_refused_has_no_report_and_leaves_that_of_another_run(tmp_path: Path) -> None:
    run = trained(tmp_path)
    file = run.path / "report.html"
    file.write_text("mine")
    with pytest.raises(sharpen.errors.RecipeError, match="already holds a run"):
        trained(tmp_path)
    assert file.read_text() == "mine"
    with pytest.raises(sharpen.errors.SharpenError):
        trained(tmp_path, run=tmp_path / "other", rollout={"max_new_tokens": 4_000_000})
    assert not (tmp_path / "other" / "report.html").exists()


def test_one_that_cannot_be_written_loses_nothing_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, on_step=lambda step, metrics: (tmp_path / "run" / "report.html").mkdir(exist_ok=True))
    assert run.finished
    assert run.model.is_dir()
    assert f"{run.path / 'report.html'}: the report cannot be written: Is a directory" in capsys.readouterr().err
    with pytest.raises(DiskError, match="the report cannot be written"):
        run.report()


def test_any_other_failure_of_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr("sharpen.report.page.at_end.write_report", broken)
    assert trained(tmp_path).finished
    assert "the report cannot be made: KeyError: 'no such thing'" in capsys.readouterr().err


def test_a_run_gives_its_report(tmp_path: Path) -> None:
    run = trained(tmp_path)
    (run.path / "report.html").unlink()
    assert ", report: " not in repr(run)
    assert run.report() == run.path / "report.html"
    assert run.report(tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    assert (tmp_path / "new" / "page.html").read_bytes() == run.report().read_bytes()
    run.path.joinpath("metrics.jsonl").unlink()
    with pytest.raises(DataError, match="no metrics yet"):
        run.report()


def test_a_run_without_a_step_gives_way_with_its_report(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.initialise("a: 1\n")
    folder.report.write_text("of a first measurement")
    RunFolder.refuse_existing(tmp_path)
    folder.initialise("a: 2\n")
    assert not folder.report.exists()


def test_the_command_line_shows_results_first(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = command("run", recipe, f"run={run}")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()[-2:]] == [
        ["plot", str(run / "plot.png")],
        ["report", str(run / "report.html")],
    ]
    for name in ("report.html", "plot.png"):
        (run / name).unlink()
        (run / name).mkdir()
    again = command("run", "--resume", run)
    assert again.exit_code == 0, again.output
    assert str(run / "checkpoints" / "step_000002") in again.stdout
    assert str(run / "metrics.jsonl") in again.stdout
    said = " ".join(again.stderr.split())
    assert f"{run / 'report.html'}: the report cannot be written: Is a directory" in said
    assert f"{run / 'plot.png'}: the plot cannot be written: Is a directory" in said


FAILING = """
calls = 0

def digits(completion, **row):
    global calls
    calls += 1
    if calls > {most}:
        raise ValueError("mine")
    return float(len(completion) % 2)
"""


def test_the_command_line_after_an_error(recipe: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("reward.py").write_text(FAILING.format(most=20))  # 16 a step
    more = ("evaluation.every=0", "checkpoint.best=null", f"reward={tmp_path / 'reward.py'}:digits")
    result = command("run", recipe, f"run={tmp_path / 'run'}", *more)
    assert result.exit_code == 2
    file = tmp_path / "run" / "report.html"
    lines = result.stderr.splitlines()
    assert f"the steps until then: {file}" in lines
    assert "mine" in result.stderr.split(str(file))[-1]  # the error is what is said last
    assert Page(file).data["runs"][0]["glance"]["step"] == 1


def test_the_demo_ends_with_both_its_runs(tmp_path: Path) -> None:
    result = command("demo", "--quick", "--run", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "demo" / "report.html") in result.stdout
    page = Page(tmp_path / "demo" / "report.html")
    assert [run["name"] for run in page.data["runs"]] == ["sft", "grpo"]
    assert [run["glance"]["step"] for run in page.data["runs"]] == [8, 2]
    assert json.loads((tmp_path / "demo" / "summary.json").read_text())["problems"] == 8
