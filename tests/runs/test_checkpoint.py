"""A checkpoint is complete or it does not exist, and a damaged one is known by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sharpen.errors import CheckpointError
from sharpen.models.policy import Policy
from sharpen.runs import checkpoint_list
from sharpen.runs.checkpoint import replace_model, save_checkpoint
from sharpen.runs.checkpoint_list import checkpoints, latest_sound, problem, prune, recover, set_aside
from sharpen.runs.checkpoint_state import load_optimizer, load_state
from sharpen.training.optimizer import make_optimizer
from sharpen.training.settings import OptimizerSettings
from tiny_models import tiny_policy

STATE: dict[str, Any] = {"step": 3, "best": None, "collector": {"next_draw": 2**60 + 1}, "value": 0.1 + 0.2}


class Weights:
    """A model of one weight."""

    def save(self, folder: Path, dtype: str = "float32", *, exact: bool = False) -> None:
        save_file({"weight": torch.ones(1)}, folder / "model.safetensors")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def trained(steps: int = 2) -> tuple[Policy, torch.optim.Optimizer]:
    policy = tiny_policy(tie_word_embeddings=True)
    optimizer = make_optimizer(policy.model.parameters(), OptimizerSettings(learning_rate=0.1, weight_decay=0.1))
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for p in policy.model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return policy, optimizer


def save(
    folder: Path, step: int, policy: Policy, optimizer: torch.optim.Optimizer, state: dict[str, Any] = STATE
) -> Path:
    return save_checkpoint(folder, step, {"": policy}, {"": optimizer}, {**state, "step": step})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path, 3, *trained())


def test_a_checkpoint_is_a_model_folder_that_transformers_loads(saved: Path) -> None:
    policy, _ = trained()
    loaded = AutoModelForCausalLM.from_pretrained(saved)
    ours, theirs = policy.model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert theirs[name].dtype == torch.float32
        assert torch.equal(ours[name], theirs[name])
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(saved)("1+2=")["input_ids"] == policy.tokenizer("1+2=")["input_ids"]
    assert loaded.generation_config.eos_token_id == 1
    assert not [file for file in saved.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


def test_state_and_optimizer_come_back_to_the_last_bit_and_go_on_alike(saved: Path) -> None:
    assert load_state(saved) == STATE
    policy, optimizer = trained()
    other, fresh = trained(0)
    other.model.load_state_dict(AutoModelForCausalLM.from_pretrained(saved).state_dict())
    load_optimizer(saved, "", fresh)
    for p, q in zip(policy.model.parameters(), other.model.parameters(), strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    optimizer.step(), fresh.step()
    for p, q in zip(policy.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q)
        assert optimizer.state[p]["step"] == fresh.state[q]["step"] == 3
        assert all(torch.equal(optimizer.state[p][n], fresh.state[q][n]) for n in ("exp_avg", "exp_avg_sq"))


def test_an_optimizer_that_has_not_stepped_yet_is_saved_and_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 1, *trained(0))
    _, optimizer = trained(1)
    assert problem(path) is None
    load_optimizer(path, "", optimizer)
    assert not optimizer.state_dict()["state"]


def test_an_optimizer_of_another_model_is_refused(saved: Path) -> None:
    smaller = make_optimizer([torch.nn.Parameter(torch.ones(2, 2))], OptimizerSettings())
    with pytest.raises(CheckpointError, match="more parameters than the model, 1"):
        load_optimizer(saved, "", smaller)


def flip(file: Path, byte: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


FILES = [
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "trainer/optimizer.safetensors",
    "trainer/state.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [(flip, "damaged, its hash is not that of the saved file"), (cut, "damaged"), (Path.unlink, "missing")],
)
def test_damage_is_recognised_and_named(saved: Path, name: str, damage: Callable[[Path], None], said: str) -> None:
    assert problem(saved) is None
    damage(saved / name)
    found = problem(saved)
    assert found is not None
    assert found.startswith(f"{saved / name}: {said}")


def test_damage_of_the_manifest_itself(saved: Path) -> None:
    manifest = saved / "manifest.json"
    whole = manifest.read_text()
    for broken, said in ((whole[:-9], "it is not JSON"), ("", "it is not JSON"), ("{}", "its `step` is not a step")):
        manifest.write_text(broken)
        assert problem(saved) == f"{manifest}: damaged, {said}"
    manifest.unlink()
    assert problem(saved) == f"{saved}: no manifest.json, it is incomplete"


def test_the_manifest_covers_every_file(saved: Path) -> None:
    listed = json.loads((saved / "manifest.json").read_text())["sha256"]
    files = {str(file.relative_to(saved)) for file in saved.rglob("*") if file.is_file()}
    assert set(listed) == files - {"manifest.json"}


def test_the_latest_sound_one_is_found_behind_damaged_ones(tmp_path: Path) -> None:
    paths = [save(tmp_path, step, *trained()) for step in (2, 10, 9, 100)]
    cut(paths[3] / "model.safetensors")
    (paths[1] / "manifest.json").unlink()
    found, damaged = latest_sound(tmp_path)
    assert found == paths[2]
    assert [path.name for path in damaged] == ["step_000100", "step_000010"]
    assert "model.safetensors" in damaged[paths[3]]
    assert latest_sound(tmp_path / "nowhere") == (None, {})


def test_what_was_left_half_written_does_not_count_and_is_written_over(tmp_path: Path) -> None:
    left = tmp_path / ".partial_000003"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    (left / "of an older format").write_text("")
    assert checkpoints(tmp_path) == []
    path = save(tmp_path, 3, *trained())
    assert problem(path) is None
    assert not left.exists()
    assert not (path / "of an older format").exists()


def test_a_checkpoint_that_is_there_is_replaced(saved: Path) -> None:
    flip(saved / "model.safetensors")
    assert save(saved.parent, 3, *trained(1), {**STATE, "value": 4}) == saved
    assert problem(saved) is None
    assert load_state(saved)["value"] == 4


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (1, None, [6]),
        (2, None, [5, 6]),
        (9, None, [1, 2, 3, 4, 5, 6]),
        (2, 3, [3, 5, 6]),
        (2, 6, [5, 6]),
        (1, 1, [1, 6]),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    for step in range(1, 7):
        save_checkpoint(tmp_path, step, {"": Weights()}, {}, {"step": step, "best": None})
    prune(tmp_path, keep, best)
    assert [int(path.name.removeprefix("step_")) for path in checkpoints(tmp_path)] == left


def test_one_that_is_set_aside_counts_no_more(saved: Path) -> None:
    set_aside(saved.parent, [saved])
    assert checkpoints(saved.parent) == []
    assert (saved.parent / "damaged_step_000003" / "model.safetensors").is_file()
    save(saved.parent, 3, *trained())
    set_aside(saved.parent, [saved])
    assert checkpoints(saved.parent) == []


class PowerCut(BaseException):
    """Nothing catches it."""


def cut_off(*arguments: Any) -> None:
    raise PowerCut


def cut_off_at_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Before the rename of that number, counted from 1."""
    rename, seen = os.rename, []

    def counted(*names: Any, **settings: Any) -> None:
        seen.append(names)
        if len(seen) == number:
            raise PowerCut
        rename(*names, **settings)

    monkeypatch.setattr(os, "rename", counted)


@pytest.mark.parametrize(("number", "there", "value"), [(0, True, 0), (1, True, 1), (2, False, 1), (3, True, 1)])
def test_cut_off_while_its_model_is_replaced_a_checkpoint_is_the_old_or_the_new(
    saved: Path, number: int, there: bool, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0: before it is listed. Once it is listed it is the new one, also where no folder has the name for a moment."""
    expected = {0: trained()[0], 1: trained(1)[0]}[value].model.state_dict()
    with monkeypatch.context() as patched:
        if number:
            cut_off_at_rename(patched, number)
        else:
            patched.setattr(checkpoint_list, "write_text", cut_off)
        # The new one stands when the old one's removal is cut off.
        patched.setattr(shutil, "rmtree", falling_where_replaced(shutil.rmtree))
        with pytest.raises(PowerCut):
            replace_model(saved, trained(1)[0], {"replaced": True})
    assert saved.exists() is there
    recover(saved.parent)
    assert names_in(saved.parent) == ["manifest.json", "step_000003"]
    assert problem(saved) is None
    assert load_state(saved) == {**STATE, **({"replaced": True} if value else {})}
    loaded = AutoModelForCausalLM.from_pretrained(saved).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def falling_where_replaced(rmtree: Callable[..., None]) -> Callable[..., None]:
    def fall(path: Any, *arguments: Any, **settings: Any) -> None:
        if Path(path).name.startswith(".replaced_") and Path(path).exists():
            (Path(path) / "model.safetensors").unlink()
            raise PowerCut
        rmtree(path, *arguments, **settings)

    return fall


def test_what_is_half_removed_does_not_count_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save(tmp_path, step, *trained())

    def half(path: Path, *arguments: Any, **settings: Any) -> None:
        if Path(path).exists():
            (Path(path) / "manifest.json").unlink()
            raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", half)
        with pytest.raises(PowerCut):
            prune(tmp_path, 1, None)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000002"]
    recover(tmp_path)
    assert names_in(tmp_path) == ["manifest.json", "step_000002"]


def test_a_damaged_checkpoint_set_aside_before_stays_until_the_next_has_its_name(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = saved.parent / "damaged_step_000003"
    aside.mkdir()
    (aside / "first").touch()
    with monkeypatch.context() as patched:
        cut_off_at_rename(patched, 2)
        with pytest.raises(PowerCut):
            set_aside(saved.parent, [saved])
    recover(saved.parent)
    assert (aside / "first").exists()
    assert problem(saved) is None
    set_aside(saved.parent, [saved])
    assert not (aside / "first").exists()
    assert names_in(saved.parent) == [aside.name, "manifest.json"]
