"""The hash of a model is that of its weights on disk."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sharpen.errors import ModelError
from sharpen.models.lora import add_adapter
from sharpen.models.policy import load_policy
from sharpen.models.saved_dtype import REMAINDER
from sharpen.models.weight_files import adapter_sha256, model_sha256
from tiny_models import loaded_policy, tiny_folder


def split(folder: Path) -> None:
    """The same weights in two files and an index, as large models are saved."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(index.values()):
        save_file({n: weights[n] for n in names if index[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_it_depends_on_the_weights_not_on_their_files(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", seed=1)
    before = model_sha256(str(folder))
    assert before == model_sha256(str(tiny_folder(tmp_path / "again", seed=1)))
    assert before != model_sha256(str(tiny_folder(tmp_path / "other", seed=2)))
    split(folder)
    assert model_sha256(str(folder)) == before
    assert load_policy(folder, device="cpu").source == str(folder)


@pytest.mark.parametrize("change", ["value", "name", "dtype", "shape"])
def test_it_depends_on_every_value_name_type_and_shape(change: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    before = model_sha256(str(folder))
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weight = weights.pop(name)
    if change == "value":
        weight[0, 0] += 1e-6
    changed = {
        "value": {name: weight},
        "name": {f"{name}.": weight},
        # The same bytes.
        "dtype": {name: weight.view(torch.int32)},
        "shape": {name: weight.reshape(-1)},
    }[change]
    save_file(weights | changed, folder / "model.safetensors", metadata={"format": "pt"})
    assert model_sha256(str(folder)) != before


def test_that_of_an_adapter_depends_on_its_base_only_where_it_is_merged(tmp_path: Path) -> None:
    base, adapter = tiny_folder(tmp_path / "base"), tmp_path / "adapter"
    policy = load_policy(base, device="cpu")
    add_adapter(policy, rank=2, alpha=4, targets="all-linear", seed=1)
    adapter.mkdir()
    policy.save(adapter)
    merged, alone = model_sha256(str(adapter)), adapter_sha256(str(adapter))
    assert model_sha256(str(base)) in merged
    tiny_folder(base, seed=5)
    assert adapter_sha256(str(adapter)) == alone
    assert model_sha256(str(adapter)) != merged


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model: cannot find its model\.safetensors"):
        model_sha256(str(folder))


def test_the_other_half_of_bfloat16_weights_is_a_part_of_them(tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "model")
    with torch.no_grad():
        policy.model.get_parameter("model.norm.weight").mul_(1 + 2**-12)
    policy.save(tmp_path / "exact", "bfloat16", exact=True)
    policy.save(tmp_path / "rounded", "bfloat16")
    exact, rounded = (model_sha256(str(tmp_path / name)) for name in ("exact", "rounded"))
    assert exact != rounded
    (tmp_path / "exact" / REMAINDER).unlink()
    assert model_sha256(str(tmp_path / "exact")) == rounded
