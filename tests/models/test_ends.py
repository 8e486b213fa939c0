"""The tokens that end a sequence, in the folders that policies are saved to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from sharpen.launch.models import load_model
from sharpen.models.lora import add_adapter
from sharpen.models.merge import merge
from sharpen.models.policy import load_policy
from sharpen.models.settings import ModelSettings
from tiny_models import loaded_policy, tiny_folder

END = 16
"""The token ``;``, beside the model's own end, 1."""


def declared(folder: Path) -> Any:
    return json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


def test_a_saved_folder_names_every_end(tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "model")
    policy.save(tmp_path / "same")
    assert declared(tmp_path / "same") == 1
    policy.end_at([END])
    policy.save(tmp_path / "more")
    assert declared(tmp_path / "more") == [1, END]
    assert load_policy(tmp_path / "more", device="cpu").eos_ids == {1, END}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "more").generation_config.eos_token_id == [1, END]


def test_what_else_generation_is_configured_with_is_kept(tmp_path: Path) -> None:
    """A temperature without sampling: transformers loads that, and refuses to save it once anything is changed."""
    folder = tiny_folder(tmp_path / "model")
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | {"do_sample": False, "temperature": 0.6, "top_p": 0.9}
    file.write_text(json.dumps(settings))
    policy = load_policy(folder, device="cpu")
    policy.end_at([END])
    policy.save(tmp_path / "saved")
    found = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert (found.eos_token_id, found.temperature, found.top_p) == ([1, END], 0.6, 0.9)


def test_ends_that_the_generation_configuration_lacks_are_added_to_it(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 7}))
    load_policy(folder, device="cpu").save(tmp_path / "saved")
    assert declared(tmp_path / "saved") == [1, 7]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter on a model that declares only token 1, of a policy that also ends at another."""
    policy = loaded_policy(tmp_path / "model")
    add_adapter(policy, rank=2, alpha=4, targets="all-linear", seed=0)
    policy.end_at([END])
    folder = tmp_path / "adapter"
    folder.mkdir()
    policy.save(folder)
    return folder


def test_an_adapter_keeps_its_ends(adapter: Path, tmp_path: Path) -> None:
    assert declared(adapter) == [1, END]
    assert load_policy(adapter, device="cpu").eos_ids == {1, END}
    assert declared(merge(adapter, tmp_path / "merged")) == [1, END]


def test_a_run_that_goes_on_from_an_adapter_ends_where_it_did(adapter: Path) -> None:
    settings = ModelSettings.model_validate({"path": str(adapter), "device": "cpu", "lora": {"rank": 2, "alpha": 4}})
    policy = load_model(settings, "policy", str(adapter), seed=0, trust_remote_code=False)
    assert policy.eos_ids == {1, END}  # type: ignore[attr-defined]
