"""Models that are missing, damaged or of another kind, and devices that are not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from batteries.bad_inputs.case import Case, Make, changed, overridden
from tiny_models import tiny_folder


def model_changed(change: Make) -> Make:
    return lambda folder: change(folder / "model")


def json_changed(name: str, **changes: Any) -> Make:
    def change(model: Path) -> None:
        content = {**json.loads((model / name).read_text()), **changes}
        (model / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return model_changed(change)


def _written(name: str, content: bytes) -> Make:
    return model_changed(lambda model: (model / name).write_bytes(content) and None)


def _removed(*names: str) -> Make:
    def remove(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return model_changed(remove)


def weights_changed(change: Callable[[dict[str, torch.Tensor]], None]) -> Make:
    def rewrite(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        change(weights)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return model_changed(rewrite)


def _cut(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])


def _an_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "model")
    tiny_folder(folder / "model", "bert")


def models() -> Iterator[Case]:
    def model(name: str, make: Make, *words: str, begins: bool = False) -> Case:
        return Case(f"model: {name}", ("run", "recipe.yaml"), words, make=make, begins=begins)

    yield overridden("model: not there", "model.path=./modle", words=("no such folder", "Did you mean `model`?"))
    yield overridden("model: a file", "model.path=./rows.jsonl", words=("rows.jsonl",))
    yield overridden("model: a name that is too long", f"model.path=./{'a' * 300}", words=("aaa",))
    yield model("no configuration", _removed("config.json"), "it has no config.json")
    yield model("a configuration that is no JSON", _written("config.json", b"{"), "model: cannot load this model")
    yield model("a configuration that is a list", _written("config.json", b"[]"), "model: cannot load this model")
    yield model(
        "a configuration that is not UTF-8", _written("config.json", b"\xff\xfe{}"), "model: cannot load this model"
    )
    yield model("an empty configuration", _written("config.json", b"{}"), "model: cannot load this model")
    yield model(
        "an unknown architecture", json_changed("config.json", model_type="none"), "model: cannot load this model"
    )
    yield model("no heads", json_changed("config.json", num_attention_heads=0), "model: cannot load this model")
    yield model(
        "layers that are a text", json_changed("config.json", num_hidden_layers="two"), "model: cannot load this model"
    )
    yield model("more layers than weights", json_changed("config.json", num_hidden_layers=3), "its files lack")
    yield model("another size", json_changed("config.json", hidden_size=32), "model: cannot load this model")
    yield model("no weights", _removed("model.safetensors"), "model: cannot load this model")
    yield model("empty weights", _written("model.safetensors", b""), "model: cannot load this model")
    yield model("cut weights", model_changed(_cut), "model: cannot load this model")
    yield model(
        "weights that are a text", _written("model.safetensors", b"hello" * 100), "model: cannot load this model"
    )
    yield model(
        "a weight that is missing", weights_changed(lambda w: w.__delitem__("model.norm.weight")), "model.norm.weight"
    )
    yield model(
        "a weight of another shape",
        weights_changed(lambda w: w.__setitem__("model.norm.weight", torch.ones(7))),
        "model: cannot load this model",
        "model.norm.weight",
    )
    yield model(
        "a weight that is NaN",
        weights_changed(lambda w: w.__setitem__("model.norm.weight", w["model.norm.weight"] * float("nan"))),
        "gives logits that are not numbers",
        begins=True,
    )
    yield model(
        "no tokenizer", _removed("tokenizer.json", "tokenizer_config.json"), "model: cannot load this model's tokenizer"
    )
    yield model(
        "a tokenizer that is no JSON", _written("tokenizer.json", b"{"), "model: cannot load this model's tokenizer"
    )
    yield model(
        "a tokenizer that is a list", _written("tokenizer.json", b"[]"), "model: cannot load this model's tokenizer"
    )
    yield model(
        "a tokenizer of another kind",
        _written("tokenizer.json", b'{"version": "1.0"}'),
        "model: cannot load this model's tokenizer",
    )
    yield model(
        "a tokenizer's settings that are no JSON",
        _written("tokenizer_config.json", b"{"),
        "model: cannot load this model's tokenizer",
    )
    yield model("an encoder", _an_encoder, "model:")
    yield model("generation settings that are no JSON", _written("generation_config.json", b"{"), "model:")
    yield overridden(
        "model: a reference that is not there",
        "method.beta=0.1",
        "method.kl.path=./none",
        words=("none: not a model folder",),
    )
    yield changed(
        "model: a critic that is not there",
        {"method": {"name": "ppo", "critic_path": "./none"}},
        "none: not a model folder",
    )
    yield overridden(
        "model: a reward model that is not there",
        "reward={name: reward_model, path: ./none}",
        words=("none: not a model folder",),
    )
    yield overridden(
        "model: a policy as a reward model", "reward={name: reward_model, path: ./model}", words=("model",)
    )


def devices() -> Iterator[Case]:
    wanted = {
        "cuda": "PyTorch finds no GPU" if not torch.cuda.is_available() else "",
        "cuda:99": "cuda:99",
        "mps": "mps",
        "meta": "meta",
        "xla": "xla",
        "gpu": "gpu",
        "cdua": "cdua",
        "cpu:1:2": "cpu:1:2",
        "cuda:-1": "cuda:-1",
        "CPU": "CPU",
        "0": "valid string",
    }
    for device, words in wanted.items():
        if words:
            yield overridden(f"device: {device}", f"model.device={device}", words=("device", words))
    for device in ("cuda:99", "mps", "cdua"):
        yield overridden(
            f"device: {device} of a reward model",
            f"reward={{name: reward_model, path: ./model, device: '{device}'}}",
            words=("device", device),
        )
