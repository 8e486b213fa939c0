"""Damage to a checkpoint is named, whoever uses it and however it is found; what is not used is not read for that."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from batteries.checkpoint_damage import HARMLESS, MANIFESTS, damaged
from sharpen.errors import CheckpointError, DiskError
from sharpen.launch.handle import Run
from sharpen.launch.load import load
from sharpen.launch.run import resume, start
from sharpen.recipe.loading import load_recipe
from sharpen.runs import checkpoint_check
from sharpen.runs.checkpoint import save_checkpoint
from sharpen.runs.checkpoint_check import MANIFEST, damage, sha256
from sharpen.runs.checkpoint_list import checkpoints, latest_sound, problem
from sharpen.runs.checkpoint_state import load_optimizer, load_state
from sharpen.runs.lookup import find_model
from sharpen.training.optimizer import make_optimizer
from sharpen.training.settings import OptimizerSettings
from tiny_models import tiny_policy
from tiny_runs import reward_file, tiny_recipe, tiny_start_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("damage") / "model")


@pytest.fixture(scope="module")
def whole(model: Path) -> Path:
    """A finished run of PPO with a lag, so that its checkpoints have a critic, and that of step 3 a pending batch."""
    folder = model.parent / "whole"
    recipe = tiny_recipe(
        folder,
        model,
        "ppo",
        method={"name": "ppo", "group_size": 2, "old": "rollout"},
        rollout={"lag": 1},
        reward=reward_file(model.parent / "reward.py"),
        training={"steps": 4},
        evaluation={"every": 0},
        checkpoint={"every": 1, "keep": 2, "best": None},
    )
    assert start(recipe).finished
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def last(run: Path) -> Path:
    return run / "checkpoints" / "step_000004"


def test_any_damage_is_refused_by_path_and_skipped_by_the_run(whole: Path, tmp_path: Path) -> None:
    tried, wrong = damaged(whole, tmp_path, flips=1, cuts=1, goes_on=False)
    assert wrong == []
    assert tried > len(MANIFESTS) + 10 * 7


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_ends_with_the_same_bits(
    whole: Path, run: Path, last: Path
) -> None:
    os.truncate(last / "trainer" / "optimizer_critic.safetensors", 100)
    said: list[str] = []
    assert resume(run, say=said.append).finished
    assert any(text.startswith(f"skipped a checkpoint: {last}/trainer/optimizer_critic") for text in said)
    expected = whole / "checkpoints" / "step_000004"
    for file in (file for file in expected.rglob("*") if file.is_file()):
        assert (last / file.relative_to(expected)).read_bytes() == file.read_bytes()
    assert (run / "checkpoints" / "damaged_step_000004").is_dir()


@pytest.mark.parametrize("name", HARMLESS)
def test_a_note_beside_the_files_is_no_damage(name: str, last: Path) -> None:
    (last / name).parent.mkdir(exist_ok=True)
    (last / name).write_text("mine")
    assert problem(last) is None


def test_an_added_file_is_named(last: Path) -> None:
    (last / "modeling_own.py").write_text("")
    assert problem(last) == f"{last}/modeling_own.py: damaged, this file was added to the checkpoint: remove it"


def test_a_link_counts_as_the_file_that_it_leads_to(last: Path, tmp_path: Path) -> None:
    """As in a folder that was fetched from the hub, whose files are links into a cache."""
    (last / "model.safetensors").rename(tmp_path / "blob")
    (last / "model.safetensors").symlink_to(tmp_path / "blob")
    assert problem(last) is None
    with (tmp_path / "blob").open("ab") as file:
        file.write(b"x")
    assert problem(last) == f"{last}/model.safetensors: damaged, its hash is not that of the saved file"


def test_only_what_is_used_is_hashed(run: Path, last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def noting(path: Path) -> str:
        hashed.append(path.relative_to(last).as_posix())
        return sha256(path)

    monkeypatch.setattr(checkpoint_check, "sha256", noting)
    listed = set(json.loads((last / MANIFEST).read_text())["sha256"])
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    configuration = {"config.json", "generation_config.json", "trainer/state.json", MANIFEST, *tokenizer}
    for uses, expected in (
        ("configuration", configuration),
        ("model", {*configuration, "model.safetensors"}),
        ("everything", {*listed, MANIFEST}),
    ):
        hashed.clear()
        assert find_model(str(run), uses).path == str(last)
        assert set(hashed) == expected
    assert {"critic/model.safetensors", "trainer/optimizer_critic.safetensors"} <= listed


def test_a_run_whose_latest_optimizer_is_damaged_still_gives_its_latest_model(run: Path, last: Path) -> None:
    os.truncate(last / "trainer" / "optimizer.safetensors", 8)
    assert find_model(str(run)).path == str(last)
    assert Run.open(run).checkpoint == last
    assert latest_sound(run / "checkpoints")[0] == last.with_name("step_000003")


def test_the_model_in_a_subfolder_of_a_checkpoint_is_checked_too(last: Path) -> None:
    assert find_model(str(last / "critic")).path == str(last / "critic")
    os.truncate(last / "critic" / "model.safetensors", 1000)
    assert find_model(str(last)).path == str(last)
    with pytest.raises(CheckpointError, match=r"critic/model.safetensors: damaged"):
        find_model(str(last / "critic"))


def test_a_copy_of_a_checkpoint_outside_its_run_is_checked_by_its_own_manifest(last: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(last, copy)
    assert find_model(str(copy)).path == str(copy)
    (copy / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"{copy}/config.json: damaged"):
        load(copy)


def test_another_model_folder_may_have_a_manifest_of_its_own(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    (folder / MANIFEST).write_text("[]")
    load(folder).close()


def test_a_manifest_of_another_step_than_the_folder_says_is_damage(last: Path) -> None:
    copy = last.with_name("step_000009")
    shutil.copytree(last, copy)
    said = f"{copy}/manifest.json: damaged, it is that of step 4, not of step_000009"
    assert problem(copy) == damage(copy) == said
    with pytest.raises(CheckpointError, match="that of step 4"):
        find_model(str(copy))


def test_a_file_that_may_not_be_read_is_named(last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        if path.name == "config.json":
            raise PermissionError(13, "Permission denied", str(path))
        return sha256(path)

    monkeypatch.setattr(checkpoint_check, "sha256", refused)
    assert problem(last) == f"{last}/config.json: cannot be read: Permission denied"


STATES: list[tuple[Any, str]] = [
    ("{", "damaged, it is not JSON"),
    ([], "damaged, it is not the state of step 4"),
    ({"step": 3}, "damaged, it is not the state of step 4"),
]


@pytest.mark.parametrize(("state", "said"), STATES)
def test_a_state_that_is_not_one_is_damage_though_its_hash_is_right(state: Any, said: str, last: Path) -> None:
    rewrite(last, "trainer/state.json", state if isinstance(state, str) else json.dumps(state))
    assert damage(last) == f"{last}/trainer/state.json: {said}"


@pytest.mark.parametrize("name", ["collector", "updates", "coefficients", "kept", "fingerprint"])
@pytest.mark.parametrize("value", [None, [], "text"])
def test_a_state_of_another_shape_ends_with_its_name(name: str, value: Any, run: Path, last: Path) -> None:
    state = load_state(last)
    if state[name] == value:
        value = {}
    rewrite(last, "trainer/state.json", json.dumps({**state, name: value}))
    as_unfinished(run, last)
    with pytest.raises(
        CheckpointError, match=r"trainer/state.json: this run cannot go on from it|kept.jsonl: not what"
    ):
        resume(run)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"groups": [{"prompt": "1"}]}]', "\udcff", '[{"groups": null}]'])
def test_pending_batches_of_another_shape_end_with_their_name(text: str, run: Path, last: Path) -> None:
    before = last.with_name("step_000003")
    shutil.rmtree(last)
    rewrite(before, "trainer/pending.json", text)
    as_unfinished(run, before)
    with pytest.raises(
        CheckpointError, match=r"trainer/pending.json: (this run cannot go on from it|damaged, it is not a list)"
    ):
        resume(run)


def as_unfinished(run: Path, checkpoint: Path) -> None:
    """List what was rewritten, and let the run have more steps to do."""
    hashes = {str(load_state(checkpoint)["step"]): sha256(checkpoint / MANIFEST)}
    (run / "checkpoints" / "manifest.json").write_text(json.dumps({"checkpoints": hashes}))
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 4", "steps: 6"))


def rewrite(checkpoint: Path, name: str, text: str) -> None:
    """Change a file and its hash, as an earlier version or a hand might have."""
    (checkpoint / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["sha256"][name] = sha256(checkpoint / name)
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


OPTIMIZERS: list[tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], str]] = [
    (lambda t: {n: v for n, v in t.items() if n != "0.exp_avg_sq"}, "0.exp_avg_sq is missing"),
    (lambda t: {**t, "0.exp_avg": t["0.exp_avg"][:-1]}, r"0.exp_avg is torch.float32 \[\d+, \d+\], and the model's is"),
    (lambda t: {**t, "0.exp_avg": t["0.exp_avg"].bfloat16()}, "0.exp_avg is torch.bfloat16"),
    (lambda t: {**t, "0.step": torch.ones(2)}, r"0.step is torch.float32 \[2\]"),
    (lambda t: {**t, "0.momentum": torch.ones(2)}, "0.momentum is not AdamW's"),
    (lambda t: {**t, "first.step": torch.ones(())}, "first.step is not of an optimizer"),
    (lambda t: {**t, "999.step": torch.ones(())}, "more parameters than the model"),
]


@pytest.mark.parametrize(("change", "said"), OPTIMIZERS)
def test_an_optimizer_that_does_not_fit_the_model_is_named(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], said: str, tmp_path: Path
) -> None:
    policy = tiny_policy()
    optimizer = make_optimizer(policy.model.parameters(), OptimizerSettings())
    for p in policy.model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    path = save_checkpoint(tmp_path, 1, {"": policy}, {"": optimizer}, {"step": 1})
    file = path / "trainer" / "optimizer.safetensors"
    load_optimizer(path, "", optimizer)
    save_file({n: t.contiguous() for n, t in change(load_file(file)).items()}, file)
    with pytest.raises(CheckpointError, match=said):
        load_optimizer(path, "", optimizer)
    os.truncate(file, 20)
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors: cannot be read"):
        load_optimizer(path, "", optimizer)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Any file of this process that would become larger cannot be written, whatever writes it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "config.json", "model.safetensors"])
def test_a_checkpoint_that_cannot_be_written_leaves_nothing_and_says_what_it_needed(name: str, tmp_path: Path) -> None:
    policy = tiny_policy()
    save_checkpoint(tmp_path, 1, {"": policy}, {}, {"step": 1})
    files = {f.name: f.stat().st_size for f in (tmp_path / "step_000001").iterdir()}
    before = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    said = r"step_000002: this checkpoint cannot be written: .*File too large.*; it takes 3.00 GiB, and its disk has"
    with largest_file(files[name] - 1), pytest.raises(DiskError, match=said):
        save_checkpoint(tmp_path, 2, {"": policy}, {}, {"step": 2}, needed_bytes=3 * 2**30)
    assert {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert not list(tmp_path.glob(".*"))
    assert save_checkpoint(tmp_path, 2, {"": policy}, {}, {"step": 2}) == checkpoints(tmp_path)[-1]


def test_a_run_that_cannot_write_a_checkpoint_ends_by_name_and_goes_on_when_it_can(
    whole: Path, model: Path, tmp_path: Path
) -> None:
    recipe = (whole / "recipe.yaml").read_text().replace(str(whole), str(tmp_path / "run"))
    (tmp_path / "recipe.yaml").write_text(recipe)
    starting = load_recipe(tmp_path / "recipe.yaml")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def no_more_room(step: int, metrics: Any) -> None:
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with pytest.raises(DiskError, match=r"step_000003: .*the latest checkpoint is .*step_000002; to continue: "):
            start(starting, on_step=no_more_room)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_000001", "step_000002"]
    assert resume(tmp_path / "run").finished
    for file in (file for file in (whole / "checkpoints").rglob("*") if file.is_file()):
        assert (tmp_path / "run" / file.relative_to(whole)).read_bytes() == file.read_bytes()
