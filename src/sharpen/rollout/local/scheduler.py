"""Continuous batching: sample a token per row, remove finished rows, prefill waiting requests in their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.models.kernels.compiled import on_gpu
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local.cuda_graph import CudaGraphRunner
from sharpen.rollout.local.model_runner import ModelRunner
from sharpen.rollout.local.request import FinishedRequest, Request
from sharpen.rollout.local.running_batch import RunningBatch
from sharpen.rollout.sampling import sample
from sharpen.types import Prompt

COMPACT_AT = 0.75
"""Finished rows are removed, and waiting requests added, once at most this share of the batch is unfinished."""


class Scheduler:
    """Holds the running batch, its model runner and the logits of each row's next token.

    Once per token the host has to check which rows have finished. On a CPU it checks before the token is decoded. On a
    GPU it checks afterwards: sampling, recording and decoding are then one CUDA graph, at the price of one superfluous
    forward pass at the end.
    """

    def __init__(
        self,
        tokenizer: Any,
        make_runner: Callable[[], ModelRunner],
        batch: RunningBatch,
        prompts: Sequence[Prompt],
        waiting: deque[Request],
        sampling: Sampling,
        seed: int,
    ) -> None:
        """``make_runner`` makes a runner with an empty KV cache."""
        self._tokenizer, self._make_runner = tokenizer, make_runner
        self._batch, self._prompts, self._waiting = batch, prompts, waiting
        self._sampling, self._seed = sampling, seed
        self._runner = make_runner()
        self._sample = on_gpu(sample, batch.tokens_BT.device)
        self._logits_BV = torch.empty(0)
        self._finished: list[FinishedRequest] = []

    def run(self, *, decode_first: bool, cuda_graph: bool) -> list[FinishedRequest]:
        """``decode_first``: decode each token before checking which rows have finished; ``cuda_graph``: as a graph."""
        self._prefill_waiting()
        step = CudaGraphRunner(self._sample_and_decode, capture=cuda_graph)
        while len(self._batch):
            if decode_first:
                self._runner.reserve()
                step((self._batch.layout_version, self._runner.layout_version))
                self._logits_BV = self._logits_BV[self._remove_finished()]
            else:
                token_B = self._sample_tokens()[self._remove_finished()]
                if len(self._batch):
                    self._runner.reserve()
                    self._logits_BV = self._runner.decode(token_B)
            if self._can_prefill():
                self._prefill_waiting()
        return self._finished

    def _sample_and_decode(self) -> None:
        self._logits_BV.copy_(self._runner.decode(self._sample_tokens()))

    def _sample_tokens(self) -> Tensor:
        token_B, logprob_B = self._sample(self._logits_BV, self._batch.uniform_B(), self._sampling.truncation)
        self._batch.append(token_B, logprob_B)
        return token_B

    def _remove_finished(self) -> Tensor | slice:
        """Remove the finished rows if there are enough of them. Returns the index of the rows that are left."""
        batch = self._batch
        if self._sampling.stop:
            self._apply_stop_strings(self._sampling.stop)
        unfinished_B = batch.unfinished_B
        unfinished = int(unfinished_B.sum())
        if unfinished > COMPACT_AT * len(batch):
            return slice(None)
        index_B = unfinished_B.nonzero().squeeze(1)
        self._finished += batch.select_rows(index_B)
        if unfinished:
            self._runner.select_rows(index_B)
        else:
            self._runner = self._make_runner()
        return index_B

    def _can_prefill(self) -> bool:
        running = len(self._batch)
        return bool(self._waiting) and (
            running == 0 or (self._runner.continuous_batching and running <= COMPACT_AT * self._sampling.max_sequences)
        )

    def _prefill_waiting(self) -> None:
        """Add as many waiting requests as ``max_sequences`` allows."""
        free = self._sampling.max_sequences - len(self._batch)
        requests = [self._waiting.popleft() for _ in range(min(len(self._waiting), free))]
        if not requests:
            return
        copies: dict[int, int] = {}
        for request in requests:
            copies[request.prompt] = copies.get(request.prompt, 0) + 1
        logits_BV = self._runner.prefill([self._prompts[i] for i in copies], list(copies.values()))
        self._logits_BV = torch.cat([self._logits_BV, logits_BV]) if len(self._batch) else logits_BV
        self._batch.add_requests(requests, self._seed)

    def _apply_stop_strings(self, stop: tuple[str, ...]) -> None:
        # A token holds at least one byte of text unless it is special, so this window covers the longest string.
        window = max(len(s.encode()) for s in stop) + 8
        texts = self._tokenizer.batch_decode(self._batch.last_tokens(window), skip_special_tokens=True)
        hit = [b for b, text in enumerate(texts) if any(s in text for s in stop)]
        self._batch.finish_by_stop_string(torch.tensor(hit, dtype=torch.long, device=self._batch.tokens_BT.device))
