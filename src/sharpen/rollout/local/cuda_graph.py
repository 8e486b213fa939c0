"""A step that is repeated on the same tensors, as one CUDA graph: nothing of it passes through Python again."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch


class Replay:
    """Runs ``step``, which reads and writes tensors in place and gives back nothing.

    A graph is good for as long as those tensors are the same ones: ``key`` has to change with any of them. The first
    run under a key is an ordinary one, and readies what may not be made during a capture.
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
            # The last graph of a pool takes its memory along: the one before goes once there is another.
            self._graph, self._captured = graph, True
        assert self._graph is not None
        self._graph.replay()
