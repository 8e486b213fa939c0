"""Continuous batching: sample a token per row, remove finished rows, prefill waiting requests in their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.data.tokens import visible_texts
from sharpen.models.kernels.compiled import on_gpu
from sharpen.rollout.engine import EngineCounters, Sampling
from sharpen.rollout.local.admission import admissible, by_context
from sharpen.rollout.local.cuda_graph import CudaGraphRunner
from sharpen.rollout.local.kept import Kept, KeptConversations
from sharpen.rollout.local.model_runner import ModelRunner
from sharpen.rollout.local.request import EndedRow, UnfinishedRequest
from sharpen.rollout.local.running_batch import RunningBatch
from sharpen.rollout.sampling import sample

COMPACT_AT = 0.75
"""Finished rows are removed, and waiting requests added, once at most this share of the batch is unfinished."""


class Scheduler:
    """Holds the waiting requests, the running batch, its model runner and the logits of each row's next token.

    Once per token the host has to check which rows have finished. On a CPU it checks before the token is decoded. On a
    GPU it checks afterwards: sampling, recording and decoding are then one CUDA graph, at the price of one superfluous
    forward pass at the end.

    Requests are admitted while the cache has room for their next tokens, not for all that they may draw; kept
    conversations make room for them. When the cache has to grow beyond ``slots``, finished rows go first, then kept
    conversations, then the rows that came last are preempted: they wait in front of all others, and their context is
    computed again.
    """

    def __init__(
        self,
        tokenizer: Any,
        make_runner: Callable[[], ModelRunner],
        batch: RunningBatch,
        sampling: Sampling,
        kept: KeptConversations,
        counters: EngineCounters,
        *,
        max_sequences: int,
        slots: int,
    ) -> None:
        """``make_runner`` makes a runner with an empty KV cache; ``slots`` bounds those of the cache and ``kept``."""
        self._tokenizer, self._make_runner = tokenizer, make_runner
        self._batch, self._sampling = batch, sampling
        self._kept, self._counters = kept, counters
        self._max_sequences, self._slots = max_sequences, slots
        self._runner = make_runner()
        self._sample = on_gpu(sample, batch.tokens_BT.device)
        self._logits_BV = torch.empty(0)
        self._step: CudaGraphRunner | None = None
        self._waiting: deque[UnfinishedRequest] = deque()
        # Whether requests were added to an empty batch, and none has been prefilled since.
        self._unsorted = False
        # Whether there may be room for a waiting request that did not fit before.
        self._room_changed = True
        self._ended: list[EndedRow] = []

    def add(self, requests: Sequence[UnfinishedRequest]) -> None:
        self._waiting += requests
        self._room_changed = True
        self._unsorted |= not len(self._batch)

    def cancel(self, draw_ids: Collection[int]) -> None:
        """Forget these requests."""
        self._waiting = deque(r for r in self._waiting if r.request.draw_id not in draw_ids)
        left = [b for b in self._batch.untaken() if self._batch.requests[b].request.draw_id not in draw_ids]
        if len(left) < len(self._batch):
            index_B = torch.tensor(left, dtype=torch.long, device=self._batch.tokens_BT.device)
            self._select_rows(index_B)
            self._logits_BV = self._logits_BV[index_B]

    def run(self, at_least: int, *, decode_first: bool, cuda_graph: bool) -> list[EndedRow]:
        """Until ``at_least`` rows have ended, or nothing is left.

        ``decode_first``: decode each token before checking which rows have finished; ``cuda_graph``: as a graph.
        """
        if self._step is None:
            self._step = CudaGraphRunner(self._sample_and_decode, capture=cuda_graph)
        while len(self._ended) < at_least:
            if self._can_prefill():
                self._prefill_waiting()
            if not len(self._batch):
                break
            if decode_first:
                self._logits_BV = self._logits_BV[self._make_room()]
                self._reserve()
                self._step((self._batch.layout_version, self._runner.layout_version))
                self._logits_BV = self._logits_BV[self._remove_finished(at_least)]
            else:
                token_B = self._sample_tokens()[self._remove_finished(at_least)]
                if len(self._batch):
                    token_B = token_B[self._make_room()]
                    self._reserve()
                    self._logits_BV = self._runner.decode(token_B)
        ended, self._ended = self._ended, []
        return ended

    def _sample_and_decode(self) -> None:
        self._logits_BV.copy_(self._runner.decode(self._sample_tokens()))

    def _sample_tokens(self) -> Tensor:
        token_B, logprob_B = self._sample(self._logits_BV, self._batch.uniform_B(), self._sampling.truncation)
        self._batch.append(token_B, logprob_B)
        return token_B

    def _reserve(self) -> None:
        self._runner.reserve(self._slots - self._kept.slots)
        self._counters.decoded_tokens += len(self._batch)

    def _remove_finished(self, at_least: int) -> Tensor | slice:
        """Remove the finished rows if there are enough of them. Returns the index of the rows that are left."""
        batch = self._batch
        if self._sampling.stop:
            self._apply_stop_strings(self._sampling.stop)
        unfinished_B = batch.unfinished_B
        unfinished = int(unfinished_B.sum())
        finished = len(batch) - unfinished
        if unfinished > COMPACT_AT * len(batch):
            if finished and len(self._ended) + finished - batch.taken >= at_least:
                self._take_finished()
            return slice(None)
        return self._compact(unfinished_B)

    def _compact(self, unfinished_B: Tensor) -> Tensor:
        self._take_finished()
        index_B = unfinished_B.nonzero().squeeze(1)
        self._select_rows(index_B)
        return index_B

    def _select_rows(self, index_B: Tensor) -> None:
        self._batch.select_rows(index_B)
        if len(self._batch):
            self._runner.select_rows(index_B)
        else:
            self._runner = self._make_runner()
        self._room_changed = True

    def _take_finished(self) -> None:
        for ended in self._batch.take_finished():
            self._ended.append(ended)
            if ended.unfinished.request.keep and self._runner.keeps:
                self._keep(ended)

    def _keep(self, ended: EndedRow) -> None:
        """Keep the row's keys and values, unless there is no room beside the running batch.

        The last token may not have gone through the model, as on a CPU; it is computed with the next request.
        """
        request, drawn = ended.unfinished.request, ended.tokens[:-1]
        token_ids = request.token_ids + drawn
        if self._runner.slots + len(token_ids) > self._slots:
            return
        while not self._fits(self._runner.slots + len(token_ids)):
            self._evict()
        copied = self._runner.copy_row(ended.row, len(drawn) - len(ended.unfinished.tokens))
        self._kept.add(request.draw_id, Kept(token_ids, *copied))

    def _fits(self, slots: int) -> bool:
        return slots + self._kept.slots <= self._slots

    def _evict(self, protected: Collection[int] = ()) -> bool:
        evicted = self._kept.evict(protected)
        self._counters.evictions += evicted
        return evicted

    def _make_room(self) -> Tensor | slice:
        """See to it that another token of every row fits. Returns the index of the rows that are left."""
        runner = self._runner
        if not runner.must_grow:
            return slice(None)
        rows = len(self._batch)
        if self._fits(runner.slots_to_decode(rows)):
            return slice(None)
        left_B = torch.arange(rows, device=self._batch.tokens_BT.device)
        unfinished_B = self._batch.unfinished_B
        if not bool(unfinished_B.all()):
            left_B = self._compact(unfinished_B)
            rows = len(left_B)
        while not self._fits(runner.slots_to_decode(rows)) and self._evict():
            pass
        while rows > 1 and not self._fits(runner.slots_to_decode(rows)):
            rows -= 1
        if rows < len(left_B):
            preempted = self._batch.preempted(range(rows, len(left_B)))
            self._waiting.extendleft(reversed(preempted))
            self._counters.preemptions += len(preempted)
            self._select_rows(torch.arange(rows, device=left_B.device))
            self._room_changed = False
        return left_B[:rows]

    def _can_prefill(self) -> bool:
        running = len(self._batch)
        return bool(self._waiting) and (
            running == 0
            or (self._room_changed and self._runner.continuous_batching and running <= COMPACT_AT * self._max_sequences)
        )

    def _prefill_waiting(self) -> None:
        """Add as many waiting requests as ``max_sequences`` and the memory allow, at least one to an empty batch."""
        if self._unsorted:
            # Contexts of similar length are prefilled together, which saves padding.
            self._waiting, self._unsorted = deque(sorted(self._waiting, key=lambda r: len(r.context))), False
        free = min(len(self._waiting), self._max_sequences - len(self._batch))
        first = [self._waiting[i] for i in range(free)]
        # Those that wait for their next turn are about to use what was kept of them.
        protected = {request.request.draw_id for request in self._waiting}
        while (count := admissible(first, self._runner, self._slots - self._kept.slots)) < free:
            if not self._evict(protected):
                break
        if not len(self._batch):
            while not count and self._evict():
                count = admissible(first, self._runner, self._slots - self._kept.slots)
            count = max(count, 1)
        before, self._room_changed = self._kept.slots, False
        if count:
            self._prefill([self._waiting.popleft() for _ in range(count)])
            self._room_changed = self._kept.slots < before

    def _prefill(self, requests: Sequence[UnfinishedRequest]) -> None:
        self._runner.raise_limit(max(request.room for request in requests))
        fresh, going_on = [], []
        for request in requests:
            kept = self._kept.get(request.request.draw_id)
            reused = 0 if kept is None else kept.common_prefix(request.context)
            if kept is not None and reused:
                going_on.append((request, kept, reused))
            else:
                fresh.append(request)
        added: list[UnfinishedRequest] = []
        logits_BV = [self._logits_BV] if len(self._batch) else []
        if shared := by_context(fresh):
            contexts = [same[0].context for same in shared]
            logits_BV.append(self._runner.prefill(contexts, [len(same) for same in shared]))
            self._counters.prefill_tokens += sum(map(len, contexts))
            added += [request for same in shared for request in same]
        if going_on:
            added_on, kept_on, reused_on = (list(column) for column in zip(*going_on, strict=True))
            contexts = [request.context for request in added_on]
            logits_BV.append(self._runner.extend(contexts, kept_on, reused_on))
            self._counters.prefill_tokens += sum(map(len, contexts)) - sum(reused_on)
            self._counters.reused_tokens += sum(reused_on)
            added += added_on
        self._kept.drop([request.request.draw_id for request in requests])
        self._logits_BV = torch.cat(logits_BV)
        self._batch.add_requests(added)

    def _apply_stop_strings(self, stop: tuple[str, ...]) -> None:
        # A token holds at least one byte of text, so this window covers the longest string. Nothing is hidden from it:
        # a stop string may be, or contain, a special token.
        window = max(len(s.encode()) for s in stop) + 8
        texts = visible_texts(self._tokenizer, self._batch.last_tokens(window), ())
        hit = [b for b, text in enumerate(texts) if any(s in text for s in stop)]
        self._batch.finish_by_stop_string(torch.tensor(hit, dtype=torch.long, device=self._batch.tokens_BT.device))
