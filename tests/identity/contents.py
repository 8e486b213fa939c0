"""Everything that a run leaves behind and that must be the same again, as one flat mapping."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from tiny_runs import untimed

Contents = dict[str, Any]
"""``metrics/3/reward/mean`` → its value."""


@dataclass(frozen=True, slots=True)
class Renames:
    """Old name → new name of what two versions call differently; and what of the state both compute differently."""

    files: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    recomputed: tuple[str, ...] = ()


def contents(run: Path, renames: Renames = Renames()) -> Contents:
    """Weights, optimizer state and other state of every checkpoint, metrics without timings, samples."""
    return dict(_contents(run, renames))


def _contents(run: Path, renames: Renames) -> Iterator[tuple[str, Any]]:
    for file in sorted(run.rglob("*")):
        named = str(file.relative_to(run))
        named = renames.files.get(named, named)
        if file.suffix == ".safetensors":
            for name, tensor in load_file(file).items():
                yield f"{named}/{renames.tensors.get(name, name)}", _Bits(tensor)
        elif file.name == "state.json":
            for name, value in _leaves(json.loads(file.read_text(encoding="utf-8"))):
                now = _renamed(name, renames.state)
                if not any(now == entry or now.startswith(f"{entry}/") for entry in renames.recomputed):
                    yield f"{named}/{now}", value
        elif file.suffix == ".parquet":
            for column, values in pq.read_table(file).to_pydict().items():
                yield f"{named}/{renames.columns.get(column, column)}", values
        elif named == "kept.jsonl":
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
                for column, value in json.loads(line).items():
                    yield f"{named}/{number}/{renames.columns.get(column, column)}", value
        elif named == "metrics.jsonl":
            for row in untimed([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]):
                for name, value in row.items():
                    # As text: NaN is the same as NaN, and -0.0 is not 0.0.
                    yield f"metrics/{row['step']}/{renames.metrics.get(name, name)}", repr(value)


@dataclass(frozen=True, slots=True, eq=False)
class _Bits:
    """A tensor that equals another only bit by bit."""

    tensor: torch.Tensor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Bits) or self.tensor.shape != other.tensor.shape:
            return False
        return self.tensor.dtype == other.tensor.dtype and torch.equal(_bytes(self.tensor), _bytes(other.tensor))

    def __repr__(self) -> str:
        return f"{self.tensor.dtype} {list(self.tensor.shape)}, sum {self.tensor.double().sum().item():.17g}"


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _leaves(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{above}/{name}" if above else name)
    else:
        yield above, tree


def _renamed(name: str, renames: Mapping[str, str]) -> str:
    """The name with its first parts as they are called now."""
    for old, new in renames.items():
        if name == old or name.startswith(f"{old}/"):
            return new + name.removeprefix(old)
    return name


def differences(before: Contents, now: Contents) -> list[str]:
    """A line for each thing that is not the same in both."""
    lines = [f"{name}: only before" for name in before.keys() - now.keys()]
    lines += [f"{name}: only now" for name in now.keys() - before.keys()]
    lines += [
        f"{name}: {_short(before[name])} before, {_short(now[name])} now"
        for name in before.keys() & now.keys()
        if before[name] != now[name]
    ]
    return sorted(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
