"""The rollout engine in this process, for any causal language model of transformers, on CPU or GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain
from math import isfinite

import torch
from torch import nn

from sharpen.errors import ModelError, NonFiniteError
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling, Snapshot
from sharpen.rollout.local.inference_model import InferenceModel
from sharpen.rollout.local.model_runner import ModelRunner, NativeRunner
from sharpen.rollout.local.request import FinishedRequest, Request, make_requests
from sharpen.rollout.local.running_batch import RunningBatch
from sharpen.rollout.local.scheduler import Scheduler
from sharpen.rollout.local.transformers_cache import cache_argument
from sharpen.rollout.local.transformers_runner import (
    TransformersRunner,
    update_bfloat16_linears,
    with_bfloat16_linears,
)
from sharpen.types import Prompt, Trajectory, single_turn


class LocalEngine:
    """Samples completions with continuous batching. A prompt is prefilled once for all of its completions."""

    def __init__(self, policy: Policy) -> None:
        """Raises ModelError for an architecture without a key–value cache: decoding would silently lose its state."""
        argument = cache_argument(policy.model)
        if argument is None:
            raise ModelError(
                f"{policy.source}: the local engine cannot sample from a model of type {policy.config.model_type}, "
                "because it does not keep its state in a key–value cache"
            )
        self.policy = policy
        self._cache_argument = argument
        self._inference_model: InferenceModel | None = None
        self._model: nn.Module = policy.model
        if policy.plain:
            self._inference_model = InferenceModel(policy)
        elif policy.compute_dtype == "bfloat16":
            self._model = with_bfloat16_linears(policy.model)

    def load(self, snapshot: Snapshot) -> None:
        """Load the policy's current weights.

        In float32 the engine shares the trainer's weights. In bfloat16 it keeps a rounded copy of the matrices, rounded
        as autocast rounds them at every use, and shares everything else.
        """
        if self._inference_model is not None:
            self._inference_model.publish()
        elif self._model is not self.policy.model:
            update_bfloat16_linears(self.policy.model, self._model)

    def generate(
        self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[Trajectory, ...]]:
        """One completion of prompt i for each id in ``draw_ids[i]``. Its random numbers depend on (seed, id) alone."""
        return self.run_requests(prompts, make_requests(draw_ids, sampling.max_new_tokens), sampling, seed)

    @torch.inference_mode()
    def run_requests(
        self, prompts: Sequence[Prompt], requests: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[tuple[Trajectory, ...]]:
        """The completions of each prompt. A request's own ``max_new_tokens`` applies, not that of ``sampling``."""
        training = self._model.training
        self._model.eval()
        try:
            finished = self._run(prompts, requests, sampling, seed)
        finally:
            self._model.train(training)
            if self._inference_model is not None:
                self._inference_model.release()
        result: list[list[Trajectory]] = [[] for _ in prompts]
        finished.sort(key=lambda f: (f.request.prompt, f.request.index))
        texts = self.policy.tokenizer.batch_decode([f.tokens for f in finished], skip_special_tokens=True)
        for one, text in zip(finished, texts, strict=True):
            result[one.request.prompt].append(self._completion(prompts[one.request.prompt], one, text))
        return [tuple(completions) for completions in result]

    def _run(
        self, prompts: Sequence[Prompt], requests: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[FinishedRequest]:
        # Prompts of similar length are prefilled together, which saves padding.
        waiting = deque(sorted(requests, key=lambda r: len(prompts[r.prompt].token_ids)))
        max_new_tokens = max((request.max_new_tokens for request in waiting), default=0)
        batch = RunningBatch(max_new_tokens, sorted(self.policy.eos_ids), self.policy.device)
        scheduler = Scheduler(
            self.policy.tokenizer,
            lambda: self._make_runner(max_new_tokens),
            batch,
            prompts,
            waiting,
            sampling,
            seed,
        )
        on_gpu = self.policy.device.type == "cuda" and self._inference_model is not None
        finished = scheduler.run(decode_first=on_gpu, cuda_graph=on_gpu)
        if not all(map(isfinite, chain.from_iterable(f.logprobs for f in finished))):
            raise NonFiniteError(
                f"{self.policy.source} gives logits that are not numbers, so it cannot be sampled from. If its logits "
                "were finite before this run, lower the learning rate"
            )
        return finished

    def _make_runner(self, max_new_tokens: int) -> ModelRunner:
        if self._inference_model is not None:
            return NativeRunner(self._inference_model, max_new_tokens)
        return TransformersRunner(self.policy, self._model, self._cache_argument)

    def _completion(self, prompt: Prompt, finished: FinishedRequest, text: str) -> Trajectory:
        return single_turn(
            prompt.token_ids,
            tuple(finished.tokens),
            text,
            finish=finished.finish,
            logprobs=tuple(finished.logprobs),
            versions=(self.policy.version,) * len(finished.tokens),
            draw_id=finished.request.draw_id,
        )
