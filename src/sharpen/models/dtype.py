"""The data type of matrix products."""

from __future__ import annotations

import platform
from typing import Literal

import torch

from sharpen.models.kernels import private_torch

Dtype = Literal["float32", "bfloat16"]

SavedDtype = Literal["float32", "bfloat16", "float16"]
"""Of weights on disk."""

AskedDtype = Literal["auto", "float32", "bfloat16"]
"""``auto`` is bfloat16 where the device supports it in hardware, else float32."""


def resolve_dtype(asked: AskedDtype, device: torch.device) -> Dtype:
    """The type for a device: ``asked`` itself, unless it is ``auto``."""
    if asked != "auto":
        return asked
    return "bfloat16" if computes_bfloat16(device) else "float32"


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; if not, float32 is many times faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN would also emulate it, slowly, with any AVX-512.
        return private_torch.cpu_has_avx512_bf16() or private_torch.cpu_has_amx_tile()
    return private_torch.onednn_has_bfloat16()
