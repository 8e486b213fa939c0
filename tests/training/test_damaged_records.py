"""A run whose metrics or samples were damaged goes on, says so, and ends with all that could be written again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sharpen
from sharpen.cli.app import app
from sharpen.errors import DataError
from sharpen.launch.run import resume, start
from sharpen.runs import sample_files
from tiny_runs import Raising, assert_left_the_same, left_behind, reward_file, tiny_recipe, tiny_start_model


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def fall() -> None:
    raise PowerCut


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``whole`` is a run of six steps; ``cut`` has a checkpoint of step 4, and metrics and samples of step 5."""
    folder = tmp_path_factory.mktemp("records")
    model, reward = tiny_start_model(folder / "model"), reward_file(folder / "reward.py")
    settings: dict[str, Any] = {"reward": reward, "checkpoint": {"best": None}}
    start(tiny_recipe(folder / "whole", model, "grpo", **settings))
    with pytest.raises(PowerCut):
        start(tiny_recipe(folder / "cut", model, "grpo", **settings), loggers=[Raising(lambda step: step == 5, fall)])
    return folder


@pytest.fixture
def cut(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "cut", tmp_path / "run")
    return tmp_path / "run"


Lines = list[str]


def with_nuls(lines: Lines) -> str:
    return "".join(lines) + "\0" * 500


def with_a_lost_block(lines: Lines) -> str:
    """A power cut after the size was on disk and before the end of the rows of step 5."""
    return "".join(lines)[:-300] + "\0" * 300


def with_blank_lines(lines: Lines) -> str:
    return "\n".join(lines) + "\n\n"


def twice(lines: Lines) -> str:
    return "".join([*lines[:3], *lines[1:]])


def in_disorder(lines: Lines) -> str:
    return "".join([*lines[:2], lines[3], lines[2], *lines[4:]])


MENDED: dict[Callable[[Lines], str], str] = {
    with_nuls: "line 7 holds NUL bytes: mended;",
    with_a_lost_block: "line 6 holds NUL bytes: mended;",
    with_blank_lines: "line 2 is blank; line 4 is blank;",
    twice: "line 4 is of step 1 again, as line 2; line 5 is of step 2 again, as line 3: mended;",
    in_disorder: "line 4 is of step 2, after one of step 3: mended;",
}


@pytest.mark.parametrize("damage", MENDED)
def test_metrics_that_can_be_mended_are_those_of_the_undisturbed_run(
    damage: Callable[[Lines], str], folder: Path, cut: Path
) -> None:
    metrics, said = cut / "metrics.jsonl", list[str]()
    lines = metrics.read_text().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    metrics.write_text(damage(lines))
    assert resume(cut, say=said.append).finished
    assert_left_the_same(cut, left_behind(folder / "whole"))
    [named] = [line for line in said if line.startswith(f"{metrics}: ")]
    assert MENDED[damage] in named
    assert (cut / "damaged_metrics.jsonl").read_text() == damage(lines)


def with_a_cut_line(lines: Lines) -> str:
    return "".join([*lines[:2], lines[2][:40] + "\n", *lines[3:]])


def with_a_hole(lines: Lines) -> str:
    return "".join([*lines[:2], *lines[3:]])


@pytest.mark.parametrize("damage", [with_a_cut_line, with_a_hole])
def test_a_row_that_is_gone_is_named_and_the_run_goes_on_without_it(
    damage: Callable[[Lines], str], folder: Path, cut: Path
) -> None:
    metrics, said = cut / "metrics.jsonl", list[str]()
    metrics.write_text(damage(metrics.read_text().splitlines(keepends=True)))
    assert resume(cut, say=said.append).finished
    whole = left_behind(folder / "whole")
    whole["metrics"] = [row for row in whole["metrics"] if row["step"] != 2]
    with pytest.warns(UserWarning, match=rf"{metrics}: no metrics of step 2$"):
        assert_left_the_same(cut, whole)
    gone = f"{metrics}: no metrics of step 2: the run goes on from step 4 without them;"
    assert [line for line in said if line.startswith(gone)]
    # From an older checkpoint they are written again.
    shutil.rmtree(cut / "checkpoints")
    assert resume(cut).finished
    assert_left_the_same(cut, left_behind(folder / "whole"))


def test_a_finished_run_is_mended_and_shown(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "whole", run)
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:3], "{\n", *lines[3:]]))
    with pytest.warns(UserWarning, match=rf"{metrics}: line 4 is not JSON; resuming the run mends it"):
        assert list(sharpen.Run.open(run).metrics.index) == [0, 1, 2, 3, 4, 5, 6]
    shown = CliRunner().invoke(app, ["run", "--resume", str(run), "-q"])
    assert shown.exit_code == 0, shown.output
    assert shown.stderr.splitlines() == [
        f"{metrics}: line 4 is not JSON: mended; damaged_metrics.jsonl is the file as it was"
    ]
    assert metrics.read_text() == "".join(lines)
    metrics.unlink()
    shown = CliRunner().invoke(app, ["run", "--resume", str(run), "-q"])
    assert shown.exit_code == 0, shown.output
    assert "no metrics of steps 1 to 6" in shown.stderr
    assert str(run / "checkpoints" / "step_000006") in shown.stdout


def test_samples_that_a_run_merges_are_those_of_one_that_was_killed_meanwhile(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every three steps one file. The run goes back from step 5 to 4, then from 6 to 2, which is within one."""
    monkeypatch.setattr(sample_files, "MERGED_STEPS", 3)
    run = tmp_path / "run"
    settings = {"reward": f"{folder / 'reward.py'}:digits", "checkpoint": {"best": None, "keep": 9}}
    with pytest.raises(PowerCut):
        start(tiny_recipe(run, folder / "model", "grpo", **settings), loggers=[Raising(lambda step: step == 5, fall)])
    names = ["step_000004.parquet", "step_000005.parquet", "steps_000001-000003.parquet"]
    assert sorted(file.name for file in (run / "samples").iterdir()) == names
    opened = sharpen.Run.open(run)
    single = left_behind(folder / "whole")["samples"]
    for step in range(1, 6):
        assert opened.samples(step).to_dict("records") == single[f"step_{step:06d}.parquet"]
    assert opened.samples()["draw_id"].tolist() == list(range(5 * 16))
    with pytest.raises(PowerCut):
        resume(run, loggers=[Raising(lambda step: step == 6, fall)])
    merged = ["steps_000001-000003.parquet", "steps_000004-000006.parquet"]
    assert sorted(file.name for file in (run / "samples").iterdir()) == merged
    shutil.rmtree(run / "checkpoints" / "step_000004")
    assert resume(run).finished
    found = left_behind(run)
    assert list(found["samples"]) == merged
    # Every second step: the last of three such is step 6.
    assert list(found["held_out"]) == ["step_000000.parquet", "steps_000001-000006.parquet"]
    answers = left_behind(folder / "whole")["held_out"]
    assert [r for rows in found["held_out"].values() for r in rows] == [r for rows in answers.values() for r in rows]
    assert [row for rows in found["samples"].values() for row in rows] == [r for rows in single.values() for r in rows]
    assert_left_the_same(run, {k: v for k, v in left_behind(folder / "whole").items() if k.startswith(("m", "t"))})


def test_a_damaged_file_of_held_out_answers_is_named_and_set_aside_when_it_is_merged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_files, "MERGED_STEPS", 3)
    run, said = tmp_path / "run", list[str]()
    shutil.copytree(folder / "cut", run)
    bad = run / "held_out" / "step_000002.parquet"
    bad.write_bytes(bad.read_bytes()[:100])
    for step in (2, None):
        with pytest.raises(DataError, match=rf"{bad}: damaged, its samples cannot be read"):
            sharpen.Run.open(run).held_out_samples(step)
    assert resume(run, say=said.append).finished
    assert [line for line in said if line.startswith(f"{bad}: damaged") and "set aside as damaged_step_000002" in line]
    names = ["damaged_step_000002.parquet", "step_000000.parquet", "steps_000001-000006.parquet"]
    assert sorted(file.name for file in (run / "held_out").iterdir()) == names
    assert sorted(set(sharpen.Run.open(run).held_out_samples()["step"])) == [0, 4, 6]


def test_a_damaged_sample_file_is_named(cut: Path) -> None:
    bad = cut / "samples" / "step_000002.parquet"
    bad.write_bytes(bad.read_bytes()[:100])
    run = sharpen.Run.open(cut)
    for step in (2, None):
        with pytest.raises(DataError, match=rf"{bad}: damaged, its samples cannot be read"):
            run.samples(step)
    assert len(run.samples(3)) == 16


def test_metrics_and_samples_are_on_disk_before_the_checkpoint_that_counts_on_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, flushed, counted = tmp_path / "run", dict[str, int](), list[str]()
    fsync, rename = os.fsync, os.rename

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        flushed[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_mtime_ns

    def renamed(old: Any, new: Any, **options: Any) -> None:
        if Path(new).parent.name == "checkpoints" and Path(new).name.startswith("step_"):
            folders = (run / "samples", run / "held_out")
            files = [run / "metrics.jsonl", *(file for folder in folders for file in (*folder.iterdir(), folder))]
            # Each as it is now: nothing was written to it after it was flushed.
            assert {str(f): f.stat().st_mtime_ns for f in files} == {str(f): flushed.get(str(f)) for f in files}
            assert str(run) in flushed
            counted.append(f"{Path(new).name} {len(files)}")
        rename(old, new, **options)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", renamed)
    settings = {"reward": f"{folder / 'reward.py'}:digits", "checkpoint": {"best": None}}
    start(tiny_recipe(run, folder / "model", "grpo", **settings))
    # Metrics, samples of each step and held-out answers at steps 0, 2, 4 and 6, with their two folders.
    assert counted == ["step_000002 7", "step_000004 10", "step_000006 13"]
