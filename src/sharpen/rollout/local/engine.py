"""The rollout engine in this process, for any causal language model of transformers, on CPU or GPU."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from math import ceil, isfinite

import torch
from torch import nn

from sharpen.data.tokens import hidden_ids, visible_texts
from sharpen.errors import NonFiniteError, RecipeError
from sharpen.models.policy import Policy
from sharpen.models.rope import longrope_switch
from sharpen.models.shape import UNLIMITED
from sharpen.rollout.engine import EngineCounters, FinishedRequest, Request, Sampling, Snapshot
from sharpen.rollout.local.cache_check import why_cache_fails
from sharpen.rollout.local.inference_model import InferenceModel
from sharpen.rollout.local.kept import KeptConversations
from sharpen.rollout.local.memory import RolloutMemory, kv_bytes, pass_bytes
from sharpen.rollout.local.model_runner import PREFILL_TOKENS, ModelRunner, NativeRunner
from sharpen.rollout.local.recomputing_runner import BYTES_PER_TOKEN, RecomputingRunner
from sharpen.rollout.local.request import EndedRow, UnfinishedRequest
from sharpen.rollout.local.running_batch import RunningBatch
from sharpen.rollout.local.scheduler import Scheduler
from sharpen.rollout.local.transformers_cache import bytes_of_a_token, cache_argument
from sharpen.rollout.local.transformers_runner import (
    TransformersRunner,
    cache_dtype,
    update_bfloat16_linears,
    with_bfloat16_linears,
)
from sharpen.system.memory import GIB


class LocalEngine:
    """Samples with continuous batching, within a budget of memory for keys and values. Implements `Engine`.

    In float32 it shares the policy's live weights. In bfloat16 it keeps a rounded copy of the matrices, rounded as
    autocast rounds them at every use, and shares everything else. Either way it has to be told of new weights.
    """

    def __init__(self, policy: Policy, *, max_sequences: int = 512, kv_gib: float | None = None) -> None:
        """``max_sequences`` are decoded at once. ``kv_gib``: GiB for keys and values; None: see `memory.kv_bytes`.

        A model whose cache loses something is decoded without one, and a warning says so.
        """
        self.policy = policy
        self.counters = EngineCounters()
        self._max_sequences = max_sequences
        self._inference_model: InferenceModel | None = None
        self._model: nn.Module = policy.model
        argument: str | None = None
        if policy.plain:
            self._inference_model = InferenceModel(policy)
            self._bytes_per_token = self._inference_model.bytes_per_token
        else:
            if policy.compute_dtype == "bfloat16":
                self._model = with_bfloat16_linears(policy.model)
            argument = self._usable_cache()
            self._bytes_per_token = BYTES_PER_TOKEN
            if argument is not None:
                with self._evaluating(), policy.autocast():
                    self._bytes_per_token = bytes_of_a_token(self._model, argument, cache_dtype(policy))
        self._kv_bytes = kv_bytes(policy, kv_gib)
        self._slots = self._kv_bytes // self._bytes_per_token
        self._make_runner: Callable[[], ModelRunner] = self._runner_maker(argument)
        # A row of 2³¹ tokens is beyond any model.
        self._longest = bisect_right(range(1, 2**31), self._slots, key=self._make_runner().slots_alone)
        self._switch = longrope_switch(policy.config) or UNLIMITED
        self._kept = KeptConversations()
        self._scheduler: Scheduler | None = None
        self._unfinished: dict[int, Request] = {}
        self._groups = 0
        self._version = self._policy_version = policy.version
        self._closed = False

    @property
    def version(self) -> int:
        return self._version

    @property
    def context_length(self) -> int:
        """The model's, or less where the budget cannot hold a request of that many tokens alone.

        A model with LongRoPE is sampled up to its original context: a longer row would rotate every token anew.
        """
        return min(self.policy.context_length, self._longest, self._switch)

    @property
    def why_context(self) -> str:
        """What bounds the context, if the model does not, and what to do about it."""
        if self._switch < self._longest:
            return (
                f"up to the original context of a model with rope_type longrope ({self._switch}), beyond which it "
                "rotates every token anew: lower rollout.max_new_tokens"
            )
        return "with its memory for keys and values: raise rollout.engine.kv_gib, lower rollout.max_new_tokens"

    def memory_for(self, contexts: Sequence[int], copies: int, max_new_tokens: int) -> RolloutMemory:
        """What ``copies`` completions of contexts of these lengths take, each of ``max_new_tokens``."""
        rows = min(len(contexts) * copies, self._max_sequences)
        running = sorted(contexts)[-ceil(rows / copies) :]
        if (model := self._inference_model) is not None:
            freed, kept = model.copy_bytes
            slots = len(running) * running[-1] + rows * max_new_tokens
        else:
            freed, kept = 0, sum(copy.nbytes for copy in getattr(self._model, "rounded", {}).values())
            slots = rows * (running[-1] + max_new_tokens)
        return RolloutMemory(
            kv_bytes=min(slots * self._bytes_per_token, self._kv_bytes),
            copy_bytes=freed,
            kept_copy_bytes=kept,
            pass_bytes=pass_bytes(self.policy, rows, min(sum(running), PREFILL_TOKENS)),
        )

    @torch.inference_mode()
    def add(self, requests: Sequence[Request]) -> None:
        self._check_usable()
        if not requests:
            return
        self._check(requests)
        if self._scheduler is None:
            self._scheduler = self._make_scheduler(requests[0].sampling, requests[0].seed)
        self._scheduler.add([UnfinishedRequest(request, self._groups) for request in requests])
        self._groups += 1
        self._unfinished |= {request.draw_id: request for request in requests}

    @torch.inference_mode()
    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        """Raises NonFiniteError if the logits are not numbers. Any failure loses all unfinished requests."""
        self._check_usable()
        if self._scheduler is None:
            return []
        on_gpu = self.policy.device.type == "cuda" and self._inference_model is not None
        try:
            with self._evaluating():
                ended = self._scheduler.run(at_least, decode_first=on_gpu, cuda_graph=on_gpu)
            if not all(map(isfinite, chain.from_iterable(row.logprobs for row in ended))):
                raise NonFiniteError(
                    f"{self.policy.source} gives logits that are not numbers, so it cannot be sampled from. If its "
                    "logits were finite before this run, lower the learning rate"
                )
        except BaseException:
            self._forget_all()
            raise
        for row in ended:
            del self._unfinished[row.unfinished.request.draw_id]
        if not self._unfinished:
            self._forget_all()
        return self._finished(ended)

    @torch.inference_mode()
    def cancel(self, draw_ids: Collection[int]) -> None:
        self._check_open()
        gone = self._unfinished.keys() & set(draw_ids)
        if self._scheduler is not None and gone:
            self._scheduler.cancel(gone)
            for draw_id in gone:
                del self._unfinished[draw_id]
            if not self._unfinished:
                self._forget_all()
        self._kept.drop(draw_ids)

    def release(self, draw_ids: Collection[int]) -> None:
        self._check_open()
        self._kept.drop(draw_ids)

    def load(self, snapshot: Snapshot) -> None:
        """Raises ValueError for an old version, another policy, or while requests are unfinished."""
        self._check_open()
        if snapshot.version <= self._version:
            raise ValueError(f"snapshot of version {snapshot.version} for an engine that has version {self._version}")
        if snapshot.policy is not self.policy:
            raise ValueError("the local engine draws from the policy that it was made with, not from another")
        if self._unfinished:
            raise ValueError(f"{len(self._unfinished)} requests of version {self._version} are unfinished")
        self._kept.clear()
        if self._inference_model is not None:
            self._inference_model.reload()
        elif self._model is not self.policy.model:
            update_bfloat16_linears(self.policy.model, self._model)
        self._version, self._policy_version = snapshot.version, self.policy.version

    def close(self) -> None:
        self._forget_all()
        self._kept.clear()
        self._inference_model, self._make_runner, self._model = None, _closed, self.policy.model
        self._closed = True

    def _forget_all(self) -> None:
        """Drop the running batch, its cache, and copies of weights that can be made again."""
        self._scheduler = None
        self._unfinished.clear()
        if self._inference_model is not None:
            self._inference_model.release()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this engine is closed")

    def _check_usable(self) -> None:
        self._check_open()
        if self.policy.version != self._policy_version:
            raise RuntimeError(
                f"the policy's weights went from version {self._policy_version} to {self.policy.version} and the "
                "engine was not told: load a snapshot first"
            )

    def _check(self, requests: Sequence[Request]) -> None:
        running = next(iter(self._unfinished.values()), requests[0])
        seen: set[int] = set()
        for request in requests:
            name = f"the request of draw id {request.draw_id}"
            if not request.token_ids or request.offset < 0:
                raise ValueError(f"{name}: no context, or a negative offset")
            if request.draw_id in seen or request.draw_id in self._unfinished:
                raise ValueError(f"{name}: another one of this id is unfinished")
            if _shared(request) != _shared(running):
                raise ValueError(f"{name}: its truncation, stop strings or seed differ from the unfinished ones'")
            seen.add(request.draw_id)
            length = len(request.token_ids) + request.max_new_tokens
            if length > self._switch:
                raise RecipeError(
                    f"a context of {len(request.token_ids)} tokens and {request.max_new_tokens} new ones are more than "
                    f"what the engine samples {self.why_context}"
                )
            if length > self._longest:
                needed = self._make_runner().slots_alone(length)
                raise RecipeError(
                    f"a context of {len(request.token_ids)} tokens and {request.max_new_tokens} new ones need "
                    f"{needed * self._bytes_per_token / GIB:.3g} GiB for keys and values, and the budget is "
                    f"{self._kv_bytes / GIB:.3g} GiB: raise rollout.engine.kv_gib or lower rollout.max_new_tokens"
                )

    def _make_scheduler(self, sampling: Sampling, seed: int) -> Scheduler:
        policy = self.policy
        return Scheduler(
            policy.tokenizer,
            self._make_runner,
            RunningBatch(seed, sorted(policy.eos_ids), policy.device),
            sampling,
            self._kept,
            self.counters,
            max_sequences=self._max_sequences,
            slots=self._slots,
        )

    def _usable_cache(self) -> str | None:
        """The name of the forward's argument for a cache, if decoding with one is right."""
        argument = cache_argument(self.policy.model)
        with self._evaluating():
            reason = "it takes no cache" if argument is None else why_cache_fails(self.policy, argument)
        if reason is None:
            return argument
        warnings.warn(
            f"{self.policy.source}: a model of type {self.policy.config.model_type} is sampled from slowly, with every "
            f"token computing its whole sequence again: {reason}",
            stacklevel=3,
        )
        return None

    def _runner_maker(self, argument: str | None) -> Callable[[], ModelRunner]:
        if (model := self._inference_model) is not None:
            return lambda: NativeRunner(model)
        if argument is None:
            return lambda: RecomputingRunner(self.policy, self._model)
        return lambda: TransformersRunner(self.policy, self._model, argument, self._slots)

    def _finished(self, ended: Sequence[EndedRow]) -> list[FinishedRequest]:
        tokenizer = self.policy.tokenizer
        texts = visible_texts(tokenizer, [row.tokens for row in ended], hidden_ids(tokenizer, self.policy.eos_ids))
        return [
            FinishedRequest(
                request=row.unfinished.request,
                token_ids=row.tokens,
                logprobs=row.logprobs,
                finish=row.finish,
                text=text,
                version=self._version,
                preemptions=row.unfinished.preemptions,
            )
            for row, text in zip(ended, texts, strict=True)
        ]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self._model.training
        self._model.eval()
        try:
            yield
        finally:
            self._model.train(training)


def _shared(request: Request) -> tuple[object, ...]:
    """What the requests of a running batch have in common."""
    return request.sampling.truncation, request.sampling.stop, request.seed


def _closed() -> ModelRunner:
    raise RuntimeError("this engine is closed")
