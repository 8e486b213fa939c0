"""Only the checkpoints that a run wrote are its checkpoints: no copy and no other run's counts, and none is removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.errors import CheckpointError
from sharpen.launch.handle import Run
from sharpen.launch.load import load
from sharpen.launch.run import resume, start
from tiny_runs import Raising, tiny_recipe, tiny_start_model


class PowerCut(KeyboardInterrupt):
    """Nothing catches it."""


def fall() -> None:
    raise PowerCut


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("whose") / "model")


def sft(path: Path, model: Path, *, steps: int = 4, fall_at: int | None = None, seed: int = 7) -> Path:
    """A run with a checkpoint of each step, of which the latest two are kept; cut off in step ``fall_at``."""
    recipe = tiny_recipe(
        path,
        model,
        "sft",
        seed=seed,
        training={"steps": steps},
        evaluation={"every": 0},
        checkpoint={"every": 1, "keep": 2, "best": None},
    )
    if fall_at is None:
        assert start(recipe).finished
    else:
        with pytest.raises(PowerCut):
            start(recipe, loggers=[Raising(lambda step: step == fall_at, fall)])
    return path


@pytest.fixture(scope="module")
def finished(model: Path) -> Path:
    return sft(model.parent / "finished", model)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def steps_of(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


def copied(run: Path, name: str, step: int = 3) -> Path:
    copy = run / "checkpoints" / name
    shutil.copytree(run / "checkpoints" / f"step_{step:06d}", copy)
    return copy


@pytest.mark.parametrize(
    "name", ["step_best", "step_000003 (copy)", "step_000003.old", "step_000009", "step_9", "step_٩"]
)
def test_a_copy_does_not_count_and_stays(name: str, run: Path) -> None:
    copy = copied(run, name)
    before = bytes_of(run)
    said: list[str] = []
    ended = resume(run, say=said.append)
    latest = run / "checkpoints" / "step_000004"
    assert ended.finished
    assert ended.checkpoint == Run.open(run).checkpoint == latest
    assert bytes_of(run) == before
    assert said == [
        f"{copy}: not a checkpoint that this run wrote; it does not count, and stays as it is",
        f"{run} is finished: 4 steps are done",
    ]
    with pytest.warns(UserWarning, match="not a checkpoint that this run wrote") as warned, load(run) as loaded:
        assert loaded.path == str(latest)
    assert len(warned) == 1


def test_a_checkpoint_of_another_run_does_not_count_wherever_it_is(run: Path, model: Path, tmp_path: Path) -> None:
    """Before the latest, after it, and in the place of the latest."""
    other = sft(tmp_path / "other", model, steps=6, seed=8)
    theirs = other / "checkpoints" / "step_000006"
    shutil.copytree(theirs, run / "checkpoints" / "step_000006")
    assert Run.open(run).checkpoint == run / "checkpoints" / "step_000004"
    assert resume(run).finished
    mine = run / "checkpoints" / "step_000004"
    mine.rename(tmp_path / "mine")
    four = sft(tmp_path / "four", model, seed=8) / "checkpoints" / "step_000004"
    shutil.copytree(four, mine)
    said: list[str] = []
    expected = bytes_of(tmp_path / "mine")
    assert resume(run, say=said.append).finished
    assert f"skipped a checkpoint: {mine}/manifest.json: damaged, it is not the one that its run wrote" in said
    assert bytes_of(mine) == expected
    assert bytes_of(run / "checkpoints" / "damaged_step_000004") == bytes_of(four)
    assert bytes_of(run / "checkpoints" / "step_000006") == bytes_of(theirs)


def test_one_put_into_a_run_that_has_none_yet_does_not_count(finished: Path, model: Path, tmp_path: Path) -> None:
    run = sft(tmp_path / "run", model, fall_at=1)
    theirs = sft(tmp_path / "other", model, seed=8) / "checkpoints" / "step_000003"
    shutil.copytree(theirs, run / "checkpoints" / "step_000003")
    said: list[str] = []
    assert resume(run, say=said.append).finished
    assert "no checkpoint yet: starting from the beginning" in said
    # When step 3 was done, it was in the way.
    moved = run / "checkpoints" / "unlisted_step_000003"
    assert (
        f"{moved.with_name('step_000003')}: not a checkpoint that this run wrote; it is now called {moved.name}" in said
    )
    assert bytes_of(moved) == bytes_of(theirs)
    for step in (3, 4):
        name = Path("checkpoints") / f"step_{step:06d}"
        assert bytes_of(run / name) == bytes_of(finished / name)


def test_numbers_sort_as_numbers(run: Path) -> None:
    """999,999 and 1,000,000, of which the names sort the other way."""
    folder = run / "checkpoints"
    hashes = {}
    for old, new in ((3, 999_999), (4, 1_000_000)):
        to = folder / f"step_{new:06d}"
        (folder / f"step_{old:06d}").rename(to)
        state = json.loads((to / "trainer" / "state.json").read_text())
        (to / "trainer" / "state.json").write_text(json.dumps({**state, "step": new}))
        manifest = json.loads((to / "manifest.json").read_text())
        manifest["step"] = new
        manifest["sha256"]["trainer/state.json"] = sha256_of(to / "trainer" / "state.json")
        (to / "manifest.json").write_text(json.dumps(manifest))
        hashes[str(new)] = sha256_of(to / "manifest.json")
    (folder / "manifest.json").write_text(json.dumps({"checkpoints": dict(reversed(hashes.items()))}))
    assert Run.open(run).checkpoint == folder / "step_1000000"
    (folder / "manifest.json").unlink()  # as in a run of an earlier version
    assert Run.open(run).checkpoint == folder / "step_1000000"


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_list_has_each_checkpoint_with_the_hash_of_its_manifest(run: Path) -> None:
    listed = json.loads((run / "checkpoints" / "manifest.json").read_text())
    assert listed == {
        "checkpoints": {
            str(step): sha256_of(run / "checkpoints" / f"step_{step:06d}" / "manifest.json") for step in (3, 4)
        }
    }


def test_a_run_of_an_earlier_version_has_those_whose_own_manifest_names_their_step(
    finished: Path, model: Path, tmp_path: Path
) -> None:
    run = sft(tmp_path / "run", model, fall_at=4)
    (run / "checkpoints" / "manifest.json").unlink()
    copy = copied(run, "step_000009", step=2)
    best = copied(run, "step_best", step=2)
    before = bytes_of(copy)
    said: list[str] = []
    ended = resume(run, say=said.append)
    assert f"continuing from {run}/checkpoints/step_000003" in said
    assert ended.checkpoint == run / "checkpoints" / "step_000004"
    assert bytes_of(copy) == bytes_of(best) == before
    assert steps_of(run) == ["manifest.json", "step_000003", "step_000004", "step_000009", "step_best"]
    assert bytes_of(ended.model) == bytes_of(finished / "checkpoints" / "step_000004")
    listed = json.loads((run / "checkpoints" / "manifest.json").read_text())["checkpoints"]
    assert list(listed) == ["3", "4"]


def test_a_person_may_remove_the_latest_to_go_on_from_the_one_before(finished: Path, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step_000004")
    said: list[str] = []
    assert resume(run, say=said.append).finished
    assert said[0] == f"continuing from {run}/checkpoints/step_000003"
    assert bytes_of(run / "checkpoints") == bytes_of(finished / "checkpoints")


def test_of_a_link_to_a_checkpoint_elsewhere_only_the_link_is_removed(model: Path, tmp_path: Path) -> None:
    run = sft(tmp_path / "run", model, fall_at=3)
    elsewhere = tmp_path / "large disk"
    (run / "checkpoints" / "step_000001").rename(elsewhere)
    (run / "checkpoints" / "step_000001").symlink_to(elsewhere)
    assert resume(run).finished
    assert steps_of(run) == ["manifest.json", "step_000003", "step_000004"]
    assert (elsewhere / "model.safetensors").is_file()


LISTS = [
    *("", "[]", "{}", '{"checkpoints": []}', '{"checkpoints": {"4": 1}}'),
    json.dumps({"checkpoints": {"04": "0" * 64}}),
]


@pytest.mark.parametrize("text", LISTS)
def test_a_damaged_list_is_named_with_the_remedy(text: str, run: Path) -> None:
    file = run / "checkpoints" / "manifest.json"
    file.write_text(text)
    for use in (Run.open, load, resume):
        with pytest.raises(CheckpointError, match=f"{file}: damaged, .*; without this file, each step_<number> counts"):
            use(run)
    result = CliRunner().invoke(app, ["run", "--resume", str(run)])
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    file.unlink()
    assert Run.open(run).finished


def test_the_card_of_an_exported_copy_knows_its_step(run: Path, tmp_path: Path) -> None:
    copy = copied(run, "step_best")
    result = CliRunner().invoke(app, ["export", str(copy), "--to", "card", "--out", str(tmp_path / "card.md")])
    assert result.exit_code == 0, result.output
    assert "The model of step 3." in (tmp_path / "card.md").read_text()
