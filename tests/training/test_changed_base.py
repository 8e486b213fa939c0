"""An adapter is used only with the base model that it was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import sharpen
from sharpen.cli.app import app
from sharpen.errors import ModelError
from sharpen.launch.run import resume, start
from sharpen.models.adapter_base import RECORD
from sharpen.models.merge import merge
from sharpen.models.policy import load_policy
from sharpen.models.scorer import load_scorer
from sharpen.models.weight_files import model_sha256
from tiny_runs import reward_file, tiny_recipe, tiny_start_model

LORA = {"rank": 2, "alpha": 4}
WEIGHT = "model.layers.1.mlp.up_proj.weight"
CHANGED = r"model: not the base model that the adapter was trained on; \S*{part} belongs to \S*model as it was then"


def recipe_of(path: Path, start_model: Path, name: str, /, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "model": {"lora": LORA},
        "training": {"steps": 1},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1, "best": None},
    }
    return tiny_recipe(path, start_model, name, **{**settings, **changes})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and a run of PPO, with a critic, and one of a reward model that trained adapters on it."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_start_model(home / "model")
    for name in ("ppo", "reward_model"):
        reward = {"reward": reward_file(home / "reward.py")} if name == "ppo" else {}
        start(recipe_of(home / name, model, name, **reward))
    return home


@contextmanager
def changed(home: Path) -> Iterator[None]:
    """One number of one matrix of the base is another for a while."""
    file = home / "model" / "model.safetensors"
    before = file.read_bytes()
    tensors = load_file(file)
    tensors[WEIGHT][0, 0] += 1e-6
    save_file(tensors, file, metadata={"format": "pt"})
    try:
        yield
    finally:
        file.write_bytes(before)


def chat(run: Path, out: Path) -> None:
    said = CliRunner().invoke(app, ["chat", str(run), "--max-new-tokens", "2"], input="1+2=\n/quit\n")
    if said.exit_code:
        raise ModelError(" ".join(said.stderr.split()))


def kl_to(run: Path) -> dict[str, Any]:
    return {"beta": 0.04, "kl": {"path": str(run)}}


USES: dict[str, Callable[[Path, Path], object]] = {
    "merge": lambda run, out: merge(run / "checkpoints/step_000001", out),
    "load": lambda run, out: sharpen.load(run).close(),
    "chat": chat,
    "export": lambda run, out: sharpen.export(run, "hf", out),
    "train the adapter": lambda run, out: start(recipe_of(out, run, "sft")),
    "train the merged model": lambda run, out: start(recipe_of(out, run, "sft", model={})),
    "reference": lambda run, out: start(
        recipe_of(out, run.parent / "model", "grpo", reward=reward_file(out.with_suffix(".py")), method=kl_to(run))
    ),
}


@pytest.mark.parametrize("use", USES)
def test_an_adapter_is_used_only_with_the_base_that_it_was_trained_on(use: str, home: Path, tmp_path: Path) -> None:
    run = home / "ppo"
    with (
        changed(home),
        pytest.raises(ModelError, match=CHANGED.format(part="ppo/checkpoints/step_000001")),
    ):
        USES[use](run, tmp_path / "refused")
    USES[use](run, tmp_path / "done")


@pytest.mark.parametrize("part", ["ppo/checkpoints/step_000001/critic", "reward_model/checkpoints/step_000001"])
def test_a_scorers_adapter_too(part: str, home: Path) -> None:
    kind: Any = "token" if part.endswith("critic") else "sequence"
    with changed(home), pytest.raises(ModelError, match=CHANGED.format(part=part)):
        load_scorer(home / part, kind=kind, device="cpu")
    load_scorer(home / part, kind=kind, device="cpu")


def test_a_stopped_run_goes_on_only_on_its_base(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    recipe = recipe_of(path, home / "ppo", "sft", training={"steps": 2})
    assert not start(recipe, on_step=lambda step, metrics: False).finished
    with changed(home), pytest.raises(ModelError, match=CHANGED.format(part="run/checkpoints/step_000001")):
        resume(path)
    assert resume(path).finished


def test_the_record_is_the_bases_hash_and_transformers_passes_over_it(home: Path, tmp_path: Path) -> None:
    checkpoint = home / "ppo/checkpoints/step_000001"
    model = home / "model"
    record = json.loads((checkpoint / RECORD).read_text())
    assert record == {"path": str(model), "files_sha256": model_sha256(str(model))}
    state = json.loads((checkpoint / "trainer/state.json").read_text())
    assert state["fingerprint"]["bases"]["policy"] == record
    ids = torch.tensor([[5, 9, 3, 2, 7]])
    with torch.no_grad():
        theirs, own = (
            model(input_ids=ids).logits
            for model in (AutoModelForCausalLM.from_pretrained(checkpoint), load_policy(checkpoint, device="cpu").model)
        )
    torch.testing.assert_close(theirs, own, rtol=0, atol=1e-5)
    # Without it there is nothing to compare with, as in an adapter made elsewhere.
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / RECORD).unlink()
    with changed(home):
        merge(copy, tmp_path / "merged")
    (copy / RECORD).write_text("{}")
    with pytest.raises(ModelError, match=r"copy/base_model\.json: cannot be read: KeyError\('path'\)"):
        merge(copy, tmp_path / "again")


def test_the_same_weights_elsewhere_are_the_same_base(home: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(home / "ppo/checkpoints/step_000001", tmp_path / "copy")
    moved = shutil.copytree(home / "model", tmp_path / "moved")
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(moved)}))
    with changed(home):
        merge(copy, tmp_path / "merged")
