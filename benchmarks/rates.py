"""How fast this machine multiplies matrices and reads memory, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from floor import Rates

from sharpen.models.kernels.linear import product

THREADS = 2
PRODUCTS = ((2048, 576, 1536), (2048, 1536, 576), (2048, 2048, 2048), (4096, 4096, 4096))
"""Rows × inner × columns: SmolLM2's matrices with many tokens, and plain large ones."""
MEMORY_BYTES = 2**30
SECONDS = 1.0
"""Each figure is the best within about so long: a rate that the machine has reached, not a typical one."""


def measure(dtype: str) -> tuple[Rates, dict[str, float]]:
    """The rates, and the operations per second of each product."""
    torch.set_num_threads(THREADS)
    by_product = {f"{m}x{k}x{n}": _product(m, k, n, getattr(torch, dtype)) for m, k, n in PRODUCTS}
    cache = _cache_bytes() // 2
    rates = Rates(
        operations=max(by_product.values()),
        memory=_reading(MEMORY_BYTES),
        cache=_reading(cache),
        cache_bytes=cache,
    )
    return rates, by_product


def _product(m: int, k: int, n: int, dtype: torch.dtype) -> float:
    left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    # torch takes MKL for float32, which is slow on some processors; sharpen takes oneDNN there.
    times = [_least(lambda: torch.nn.functional.linear(left, right)), _least(lambda: product(left, right))]
    return 2 * m * k * n / min(times)


def _reading(size: int) -> float:
    numbers = torch.ones(size // 4)
    return size / _least(numbers.sum)


def _least(function: Callable[[], object]) -> float:
    least, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        function()
        least = min(least, time.perf_counter() - started)
    return least


def _cache_bytes() -> int:
    """Of the last cache of the first core."""
    sizes = [
        int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]]
        for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        if (text := file.read_text(encoding="ascii").strip())
    ]
    return max(sizes, default=2**20)
