"""Functions compiled on a GPU, where every small operation is otherwise a kernel launch and a pass over memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

from sharpen.models.kernels import private_torch

COMPILES = find_spec("triton") is not None
"""Whether Triton is installed, which compiles GPU kernels; PyTorch's CUDA builds for Linux include it."""
F = TypeVar("F", bound=Callable[..., Any])


def on_gpu(function: F, device: torch.device) -> F:
    """``function`` on a CPU, compiled on a GPU. The length of the first tensor's first axis may vary between calls,
    as may the first axes of the same length in other tensors."""
    return _compiled(function) if compiles(device) else function


def compiles(device: torch.device) -> bool:
    return COMPILES and device.type == "cuda"


@functools.cache
def _compiled(function: Any) -> Any:
    fused: Any = torch.compile(function)
    mark_dynamic = private_torch.maybe_mark_dynamic()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        tensors = [x for x in arguments if isinstance(x, Tensor) and x.dim()]
        length = len(tensors[0])
        if length == 1:
            # A length of 1 would be specialised, which takes seconds.
            return function(*arguments)
        for tensor in tensors:
            if len(tensor) == length:
                # Otherwise a new length would be compiled again.
                mark_dynamic(tensor, 0)
        return fused(*arguments)

    return call
