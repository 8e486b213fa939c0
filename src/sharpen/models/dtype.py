"""The type that matrix products are computed in."""

from __future__ import annotations

import platform
from typing import Literal

import torch

Dtype = Literal["float32", "bfloat16"]

AskedDtype = Literal["auto", "float32", "bfloat16"]
"""``auto`` is bfloat16 where the device has instructions for it, else float32."""


def resolve_dtype(asked: AskedDtype, device: torch.device) -> Dtype:
    """The type that ``asked`` is on a device."""
    if asked != "auto":
        return asked
    return "bfloat16" if computes_bfloat16(device) else "float32"


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices itself; where not, float32 is many times faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN also emulates it on any AVX-512, slowly.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
