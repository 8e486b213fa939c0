"""Exported folders: their weights, ends and types; adapters; what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit
from sharpen.cli.app import app
from sharpen.errors import ModelError, RecipeError
from sharpen.models.policy import Policy, load_policy
from tiny_models import loaded_scorer, tiny_folder

CHANGED = 1 + 2**-10
"""A weight that float16 holds and bfloat16 rounds to 1."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("export") / "digits")


@pytest.fixture(scope="module")
def adapted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> sharpen.Run:
    """A run whose adapter adds 3 · B·A to each layer."""
    run = sharpen.train(
        {"path": str(model), "lora": {"rank": 2, "alpha": 6}},
        sharpen.GRPO(group_size=4),
        ROWS,
        reward=first_digit,
        held_out=ROWS[:4],
        evaluation={"every": 1},
        run=tmp_path_factory.mktemp("run") / "adapted",
        quiet=True,
        **SMALL,
    )
    return run


def test_a_folder_has_the_weights_rounded_to_the_type_and_every_end(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = CHANGED
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
    for name, first in (("float32", CHANGED), ("float16", CHANGED), ("bfloat16", 1.0)):
        done = sharpen.export(folder, "hf", tmp_path / name, dtype=name)
        found = load_file(tmp_path / name / "model.safetensors")
        assert found["model.norm.weight"][0].item() == first
        assert {str(t.dtype) for t in found.values()} == {f"torch.{name}"}
        assert all(torch.equal(found[key], weights[key].to(getattr(torch, name))) for key in weights)
        assert json.loads((done.path / "config.json").read_text())["dtype"] == name
        assert json.loads((done.path / "generation_config.json").read_text())["eos_token_id"] == [1, 7]
        assert any("every end of sequence: [1, 7]" in line for line in done.checked)
        assert load_policy(done.path).eos_ids == {1, 7}


def test_the_default_type_is_that_of_the_base_models_files(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    sharpen.export(folder, "hf", tmp_path / "half", dtype="bf16")
    sharpen.export(tmp_path / "half", "hf", tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "again"))
    assert all(torch.equal(first[key], second[key]) and second[key].dtype == torch.bfloat16 for key in first)


def test_an_adapter_is_merged_and_compared_with_itself_and_its_base(adapted: sharpen.Run, model: Path) -> None:
    done = sharpen.export(adapted, "hf", dtype="float32")
    assert done.path == adapted.path / "adapted-hf"
    assert any("equals base and adapter side by side" in line for line in done.checked)
    assert any(f"it differs from its base, {model}" in line for line in done.checked)
    files = load_file(adapted.model / "adapter_model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    a, b = (files[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = load_file(model / "model.safetensors")[f"{name}.weight"] + 3 * b @ a
    torch.testing.assert_close(load_file(done.path / "model.safetensors")[f"{name}.weight"], expected)
    front = yaml.safe_load((done.path / "README.md").read_text().split("---")[1])
    assert front == {"library_name": "transformers", "tags": ["sharpen", "grpo"]}


def test_the_card_has_the_runs_measures_and_says_what_is_not_known(adapted: sharpen.Run, tmp_path: Path) -> None:
    card = sharpen.export(adapted, "card", tmp_path / "CARD.md").path.read_text()
    rows = {row["step"]: row for row in adapted.metric_rows()}
    last = rows[2]
    shown = f"{100 * last['held_out/pass@1']:.1f} %"
    assert shown in next(line for line in card.splitlines() if line.startswith("| pass@1 |"))
    assert "the model in a folder called digits; its id on the hub is not known" in card
    assert "License: not known." in card
    assert "rows given in Python; how many is not known" in card
    assert "Group Relative Policy Optimization (`grpo`)" in card
    assert str(tmp_path.parent) not in card


def test_a_rounding_that_swallows_the_training_is_said(adapted: sharpen.Run, tmp_path: Path) -> None:
    """Two steps at the default learning rate change less than bfloat16 can hold."""
    done = sharpen.export(adapted, "hf", tmp_path / "out", dtype="bfloat16")
    assert any("that the training survives the rounding" in line for line in done.not_checked)


def test_a_base_that_is_gone_is_said(tmp_path: Path) -> None:
    start = digit_model(tmp_path / "start")
    run = sharpen.train(
        start, sharpen.GRPO(group_size=4), ROWS, reward=first_digit, run=tmp_path / "run", quiet=True, **SMALL
    )
    start.rename(tmp_path / "moved")
    done = sharpen.export(run, "hf", tmp_path / "out")
    assert any("differs from the one" in line and "start" in line for line in done.not_checked)


def test_a_scorer_keeps_its_scores(tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "base", "sequence")
    scorer.save(tmp_path / "scorer")
    done = sharpen.export(tmp_path / "scorer", "hf", tmp_path / "out", dtype="float32")
    ids = torch.tensor([[3, 4, 5, 6]])
    read = AutoModelForSequenceClassification.from_pretrained(done.path)
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, scorer.model(ids).logits, rtol=0, atol=1e-5)
    assert torch.equal(read.score.weight, scorer.head.weight)
    with pytest.raises(ModelError, match="only language models can be written to GGUF"):
        sharpen.export(tmp_path / "scorer", "gguf", tmp_path / "m.gguf")


def test_a_weight_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = 1e5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model.norm.weight: its largest number, 100000, is too large for float16"):
        sharpen.export(folder, "hf", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unless_asked(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="already exists"):
        sharpen.export(model, "hf", out)
    assert (out / "mine.txt").read_text() == "mine"
    sharpen.export(model, "hf", out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert (out / "config.json").is_file()
    with pytest.raises(RecipeError, match="'q8_0' is none of float32, bfloat16, float16"):
        sharpen.export(model, "hf", tmp_path / "other", dtype="q8_0")


def test_a_kill_leaves_nothing_that_looks_complete(model: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, sharpen\n"
        "from sharpen.exporting import export\n"
        "def killed(*arguments, **settings):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "export.check_folder = killed\n"
        "sharpen.export(sys.argv[1], 'hf', sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(model), str(tmp_path / "out")]
    done = subprocess.run(command, check=False, timeout=120, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    assert sharpen.export(model, "hf", tmp_path / "out").path.is_dir()


def test_a_wrong_folder_is_noticed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loses_an_end(policy: Policy, folder: Path, dtype: torch.dtype) -> None:
        policy.save(folder)
        (folder / "generation_config.json").write_text('{"eos_token_id": 0}')

    monkeypatch.setattr("sharpen.exporting.export.write_folder", loses_an_end)
    with pytest.raises(ModelError, match=r"nothing was written: generation_config.json has every end of sequence: .0."):
        sharpen.export(model, "hf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_was_checked(model: Path, tmp_path: Path) -> None:
    words = ["export", str(model), "--to", "hf", "--out", str(tmp_path / "out"), "--dtype", "float32"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert said.stdout == f"{model}: {tmp_path / 'out'}\n"
    assert "checked: config.json says float32" in said.stderr
    assert "not checked: that the model differs" in said.stderr
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("1+2=")["input_ids"] == [4, 13, 5, 14]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
