"""The type of matrix products: bfloat16 if the device supports it or if it is set explicitly."""

import platform
from pathlib import Path

import pytest
import torch

from sharpen.models.dtype import computes_bfloat16, resolve_dtype
from sharpen.models.policy import load_policy
from tiny_models import tiny_policy

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(
    not CPUINFO.is_file() or platform.machine() != "x86_64", reason="reads the flags of an x86 processor"
)
def test_a_cpu_computes_bfloat16_if_it_lists_the_instructions() -> None:
    flags = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")).split()
    listed = bool({"avx512_bf16", "amx_bf16"} & set(flags))
    assert computes_bfloat16(CPU) == listed
    assert resolve_dtype("auto", CPU) == ("bfloat16" if listed else "float32")


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch, native: bool, expected: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_dtype("auto", CPU) == expected


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_an_explicit_type_is_used(asked: str) -> None:
    assert resolve_dtype(asked, CPU) == asked  # type: ignore[arg-type]


def test_a_loaded_model_resolves_auto(tmp_path: Path) -> None:
    tiny_policy("llama").save(tmp_path)
    assert load_policy(tmp_path, compute_dtype="auto", device="cpu").compute_dtype == resolve_dtype("auto", CPU)
