"""Timing on a device, and what it can do: matrix products and copies, measured."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from floor import Rates

from sharpen.rollout.local.scheduler import Scheduler

REPETITIONS = 5


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], device: str, repetitions: int = REPETITIONS) -> list[float]:
    """Of each repetition, after one that warms up."""
    taken = []
    for _ in range(1 + repetitions):
        synchronize(device)
        started = time.perf_counter()
        function()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return taken[1:]


def median_seconds(function: Callable[[], object], device: str, repetitions: int = REPETITIONS) -> float:
    return statistics.median(seconds(function, device, repetitions))


def measure_rates(device: str, *, size: int, copied_bytes: int) -> Rates:
    """Operations per second of a square bfloat16 product, and bytes per second read and written by a copy: the best."""
    left, right = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    # One product alone is short beside the launch of a kernel and the wait for it.
    many = 10 if device == "cuda" else 1

    def multiply() -> None:
        for _ in range(many):
            torch.mm(left, right, out=out)

    operations = many * 2 * size**3 / min(seconds(multiply, device))
    source = torch.zeros(copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * copied_bytes / min(seconds(lambda: target.copy_(source), device))
    return Rates(operations=operations, memory=bandwidth, cache=bandwidth, cache_bytes=0)


def peak_bytes(device: str) -> int | None:
    """The most memory that tensors took since ``restart_peak``; on the CPU nobody counts."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def restart_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def scheduled(*, decode_first: bool | None = None, cuda_graph: bool | None = None) -> Iterator[None]:
    """In this context, the local engine's scheduler runs with these arguments: see `Scheduler.run`."""
    original: Any = Scheduler.run

    def run(self: Scheduler, at_least: int, **chosen: bool) -> Any:
        given = {
            name: value
            for name, value in (("decode_first", decode_first), ("cuda_graph", cuda_graph))
            if value is not None
        }
        return original(self, at_least, **(chosen | given))

    Scheduler.run = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        Scheduler.run = original  # type: ignore[method-assign]
