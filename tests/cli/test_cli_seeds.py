"""``sharpen run --seeds``: the runs of several seeds, stopped, failed and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from page_runs import Page
from sharpen.cli.app import app
from sharpen.errors import CheckpointError, RecipeError, RunInUseError
from sharpen.pipelines.seeds import prepare
from sharpen.recipe.loading import load_recipe, make_recipe
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import run_lock
from sharpen.runs.lookup import find_model
from sharpen.runs.seeds import SeedsFolder
from tiny_runs import assert_left_the_same, left_behind, reward_file, tiny_start_model, tiny_tree

PATIENCE_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a reward, a recipe and, in ``whole``, its runs with seeds 7 and 8."""
    folder = tmp_path_factory.mktemp("seeds")
    tree = tiny_tree(
        folder / "whole", tiny_start_model(folder / "model"), "grpo", reward=reward_file(folder / "reward.py")
    )
    write_recipe(folder, tree)
    result = call("run", folder / "recipe.yaml", "--seeds", 2)
    assert result.exit_code == 0, result.output
    return folder


def write_recipe(folder: Path, tree: dict[str, Any]) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))


def call(*arguments: object) -> Result:
    result = CliRunner(env={"COLUMNS": "100", "OMP_NUM_THREADS": "1"}).invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def complaint(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 2
    return " ".join(result.stderr.split())


def nothing(text: str) -> None:
    return


def until(done: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait, but not for a process that has ended: then what it said is the error."""
    ends_s = time.monotonic() + PATIENCE_S
    while not done():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends_s
        time.sleep(0.05)


def steps(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def test_side_by_side_leaves_the_bits_of_one_after_another_and_of_a_run_alone(folder: Path) -> None:
    beside = folder / "beside: {a, b}"  # no YAML
    result = call("run", folder / "recipe.yaml", f"run='{beside}'", "--seeds", 2, "--at-once", 2)
    assert result.exit_code == 0, result.output
    alone = call("run", folder / "recipe.yaml", f"run={folder / 'alone'}", "seed=8")
    assert alone.exit_code == 0, alone.output
    for seed in (7, 8):
        assert_left_the_same(beside / f"seed_{seed}", left_behind(folder / "whole" / f"seed_{seed}"))
    assert_left_the_same(folder / "alone", left_behind(folder / "whole" / "seed_8"))
    weights = [left_behind(beside / f"seed_{seed}")["model.safetensors"] for seed in (7, 8)]
    assert weights[0] != weights[1]


def test_the_values_are_those_of_the_runs(folder: Path) -> None:
    written = json.loads((folder / "whole" / "seeds.json").read_text())
    assert written["seeds"] == [7, 8]
    assert written["unfinished"] == []
    rows = [
        [json.loads(line) for line in (folder / "whole" / f"seed_{seed}" / "metrics.jsonl").read_text().splitlines()]
        for seed in (7, 8)
    ]
    reward = written["measures"]["held_out/reward"]
    assert reward["before"]["values"] == [run[0]["held_out/reward"] for run in rows]
    first, second = reward["after"]["values"]
    assert [first, second] == [run[-1]["held_out/reward"] for run in rows]
    # Of two values s/√2 is half their distance, and t with one degree of freedom is tan(0.95 · π/2).
    half = 12.7062047 * abs(first - second) / 2
    assert reward["after"]["high"] == pytest.approx((first + second) / 2 + half)
    assert written["measures"]["reward/mean"]["after"]["values"] == [run[-1]["reward/mean"] for run in rows]
    assert (folder / "whole" / "plot.png").read_bytes().startswith(b"\x89PNG")
    page = Page(folder / "whole" / "report.html").data
    assert page["seeds"]
    assert [run["name"] for run in page["runs"]] == ["seed_7", "seed_8"]
    shown = [run["series"]["values"]["held_out/reward"][0] for run in page["runs"]]
    assert shown == pytest.approx([run[0]["held_out/reward"] for run in rows])
    assert [run["name"] for run in Page(folder / "whole" / "seed_7" / "report.html").data["runs"]] == ["seed_7"]


def test_a_seed_that_fails_stops_no_other_is_named_and_is_continued_alone(folder: Path) -> None:
    runs = folder / "failing"
    command = ("run", folder / "recipe.yaml", f"run={runs}", "training.steps=2", "--seeds", 2)
    with run_lock(runs / "seed_7", nothing):
        result = call(*command)
    assert result.exit_code == 2
    assert "seed 7 failed with exit code 2" in result.stderr
    assert f"{runs / 'seed_7'} is in use by process {os.getpid()}" in result.stderr
    assert str(runs / "seed_7" / "output.log") in result.stderr
    assert "in use" in (runs / "seed_7" / "output.log").read_text()
    written = json.loads((runs / "seeds.json").read_text())
    assert (written["seeds"], written["unfinished"]) == ([8], [7])
    assert str(runs / "report.html") in result.stdout
    assert [run["name"] for run in Page(runs / "report.html").data["runs"]] == ["seed_8"]
    before = {path: path.stat().st_mtime_ns for path in (runs / "seed_8").rglob("*")}
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert "seed 8 is finished" in result.stderr
    assert json.loads((runs / "seeds.json").read_text())["seeds"] == [7, 8]
    assert {path: path.stat().st_mtime_ns for path in (runs / "seed_8").rglob("*")} == before


def start(folder: Path, run: Path, *settings: str, pause_s: float = 0.02) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from sharpen.cli.app import main; main()", "run", str(folder / "recipe.yaml")]
    slow = reward_file(folder / "slow.py", pause_s)
    return subprocess.Popen(
        [*command, f"run={run}", f"reward={slow}", *settings, "--seeds", "2", "--at-once", "2"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_signal_stops_all_after_their_step_and_resuming_the_folder_continues_all(folder: Path) -> None:
    runs = folder / "stopped"
    process = start(folder, runs, "checkpoint.every=0")
    both = [runs / "seed_7", runs / "seed_8"]
    until(lambda: all(steps(run) > 1 for run in both), process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143, said
    assert f"sharpen run --resume {runs}" in said
    assert "failed" not in said
    for run in both:
        [checkpoint] = (run / "checkpoints").glob("step_*")
        assert checkpoint.name == f"step_{steps(run) - 1:06d}" < "step_000006"
    assert not (runs / "seeds.json").exists()
    assert not (runs / "report.html").exists()  # a scheduler gives no time for it
    result = call("run", "--resume", runs, "--at-once", 2)
    assert result.exit_code == 0, result.output
    for seed, run in zip((7, 8), both, strict=True):
        whole = left_behind(folder / "whole" / f"seed_{seed}")
        assert left_behind(run)["model.safetensors"] == whole["model.safetensors"]


def test_a_second_ctrl_c_ends_all_in_the_middle_of_a_step(folder: Path) -> None:
    runs = folder / "stuck"
    process = start(folder, runs, pause_s=600.0)
    both = [runs / "seed_7", runs / "seed_8"]
    until(lambda: all((run / "recipe.yaml").exists() for run in both), process)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not any(in_use(run) for run in both)


def test_no_run_goes_on_when_the_command_is_killed(folder: Path) -> None:
    runs = folder / "killed"
    process = start(folder, runs, "training.steps=100000", "checkpoint.every=0", "evaluation.every=100000")
    both = [runs / "seed_7", runs / "seed_8"]
    until(lambda: all(steps(run) > 0 for run in both), process)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    for run in both:
        until(lambda run=run: not in_use(run))
        assert list((run / "checkpoints").glob("step_*"))


def in_use(run: Path) -> bool:
    try:
        with run_lock(run, nothing):
            return False
    except RunInUseError:
        return True


def test_a_folder_of_seeds_is_of_one_recipe_and_not_one_run(folder: Path) -> None:
    recipe, whole = folder / "recipe.yaml", folder / "whole"
    said = complaint("run", recipe, "training.steps=9", "optimizer.learning_rate=0.5", "--seeds", 2)
    assert "optimizer.learning_rate (0.003 there, 0.5 here), training.steps (6 there, 9 here)" in said
    assert f"also holds seed 8: give --seeds 2, or remove {whole / 'seed_8'}" in complaint("run", recipe, "--seeds", 1)
    named = f"{whole} holds the runs of several seeds, not one run: name one of {whole / 'seed_7'}, {whole / 'seed_8'}"
    assert named in complaint("run", recipe)
    assert named in complaint("eval", whole)
    with pytest.raises(CheckpointError, match="name one of"):
        find_model(str(whole))
    assert "already holds a run" in complaint("run", recipe, f"run={whole / 'seed_7'}", "--seeds", 2)


def test_options_without_effect_are_refused(folder: Path) -> None:
    assert "--at-once has no effect without --seeds" in complaint("run", folder / "recipe.yaml", "--at-once", 2)
    assert "--resume continues all seeds" in complaint("run", "--resume", folder / "whole", "--seeds", 2)


def test_more_seeds_join_those_there_are(folder: Path) -> None:
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe = make_recipe({**tree, "run": str(folder / "more")})
    assert prepare(recipe, 2).seeds() == (7, 8)
    assert prepare(recipe, 4).seeds() == SeedsFolder(folder / "more").seeds() == (7, 8, 9, 10)


def test_a_mistake_is_named_before_anything_is_written_and_the_corrected_command_works(folder: Path) -> None:
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    wrong = make_recipe({**tree, "run": str(folder / "typo"), "checkpoint": {"best": "rewrad"}})
    for _ in range(2):
        with pytest.raises(RecipeError, match=r"checkpoint\.best: .*rewrad"):
            prepare(wrong, 2)
    assert not (folder / "typo").exists()


def test_seeds_that_did_no_step_give_way_to_the_corrected_recipe(folder: Path) -> None:
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    first, second = (make_recipe({**tree, "run": str(folder / "idle"), "training": {"steps": n}}) for n in (5, 6))
    seeds = prepare(first, 2)
    run = RunFolder(seeds.run(7))
    run.initialise(first.to_yaml())
    run.append_metrics({"step": 0})
    assert prepare(second, 2).seeds() == (7, 8)
    # A recipe there would be gone on with.
    assert not run.recipe.exists()
    assert not run.metrics.exists()
    assert load_recipe(seeds.recipe).training.steps == 6
    run.initialise(second.to_yaml())
    run.append_metrics({"step": 1})
    with pytest.raises(RecipeError, match=r"differs in training\.steps \(6 there, 5 here\)"):
        prepare(first, 2)
    assert run.metrics.exists()


def test_a_single_run_that_did_no_step_becomes_a_folder_of_seeds_and_not_both(folder: Path) -> None:
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe = make_recipe({**tree, "run": str(folder / "single")})
    RunFolder(recipe.run).initialise(recipe.to_yaml())
    prepare(recipe, 2)
    assert sorted(path.name for path in recipe.run.iterdir()) == ["seed_7", "seed_8", "seeds.yaml"]
