"""A step that is repeated on the same tensors, replayed as one CUDA graph without going through Python."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch


class CudaGraphRunner:
    """Runs ``step``, which reads and writes tensors in place and returns nothing.

    A graph is valid as long as its tensors are the same objects: ``key`` has to change when any of them does. The first
    run under a key is an ordinary one and serves as the warm-up that a capture needs.
    """

    def __init__(self, step: Callable[[], None], *, capture: bool) -> None:
        self._step, self._capture = step, capture
        self._key: Hashable = None
        self._captured = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pool = torch.cuda.graph_pool_handle() if capture else None

    def __call__(self, key: Hashable) -> None:
        if not self._capture or key != self._key:
            self._key, self._captured = key, False
            self._step()
            return
        if not self._captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                self._step()
            # A pool is freed with its last graph, so the previous graph is dropped only after the new one exists.
            self._graph, self._captured = graph, True
        assert self._graph is not None
        self._graph.replay()
