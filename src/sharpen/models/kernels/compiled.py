"""Functions of tensors that the compiler fuses on a GPU, where each small operation costs a kernel and a way through
memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

COMPILES = find_spec("triton") is not None
"""Whether there is a compiler for kernels of a GPU; torch brings it along with its CUDA builds for Linux."""
F = TypeVar("F", bound=Callable[..., Any])


def on_gpu(function: F, device: torch.device) -> F:
    """``function`` itself on a CPU, and compiled on a GPU. The first axis of its first tensor may have any length,
    and with it that of others that are as long."""
    return _compiled(function) if compiles(device) else function


def compiles(device: torch.device) -> bool:
    return COMPILES and device.type == "cuda"


@functools.cache
def _compiled(function: Any) -> Any:
    fused: Any = torch.compile(function)
    mark_dynamic: Any = torch._dynamo.maybe_mark_dynamic

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        tensors = [x for x in arguments if isinstance(x, Tensor) and x.dim()]
        length = len(tensors[0])
        if length == 1:
            # A length of 1 would be compiled apart, for seconds.
            return function(*arguments)
        for tensor in tensors:
            if len(tensor) == length:
                # Otherwise another length would be compiled anew.
                mark_dynamic(tensor, 0)
        return fused(*arguments)

    return call
