"""The rollout engine in this process: any causal language model of transformers, on CPU or GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain
from math import isfinite

import torch
from torch import nn

from sharpen.errors import ModelError, NonFiniteError
from sharpen.models.policy import Policy
from sharpen.rollout.engine import ModelRunner, Sampling
from sharpen.rollout.local.model_runner import Decoder, PackedRunner
from sharpen.rollout.local.running_batch import Finished, Request, RunningBatch
from sharpen.rollout.local.scheduler import Scheduler
from sharpen.rollout.local.transformers_cache import cache_argument
from sharpen.rollout.local.transformers_runner import TransformersRunner, round_matrices, with_rounded_matrices
from sharpen.types import Completion, Prompt


class LocalEngine:
    """Draws completions from a policy. Prompts are computed once per group; finished rows make room for others."""

    def __init__(self, policy: Policy) -> None:
        """Raises ModelError for an architecture whose past is no key–value cache: it would silently forget it."""
        argument = cache_argument(policy.model)
        if argument is None:
            raise ModelError(
                f"{policy.source}: the local engine cannot draw from a model of type {policy.config.model_type}, "
                "which keeps its past in something else than a key–value cache"
            )
        self.policy = policy
        self._cache_argument = argument
        self._decoder: Decoder | None = None
        self._model: nn.Module = policy.model
        if policy.plain:
            self._decoder = Decoder(policy)
        elif policy.compute_dtype == "bfloat16":
            self._model = with_rounded_matrices(policy.model)

    def publish(self) -> None:
        """Take over the policy's present weights.

        In float32 the engine computes with the weights that the trainer has when it is called. In bfloat16 it computes
        with a rounded copy of the matrices, the same rounding that autocast applies at every use, and shares all else.
        """
        if self._decoder is not None:
            self._decoder.publish()
        elif self._model is not self.policy.model:
            round_matrices(self.policy.model, self._model)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[Completion, ...]]:
        """One completion of prompt i for each id in ``draw_ids[i]``; its randomness is that of (seed, id) alone."""
        training = self._model.training
        self._model.eval()
        try:
            written = self._decode(prompts, self._wanted(prompts, draw_ids, sampling), sampling, seed)
        finally:
            self._model.train(training)
            if self._decoder is not None:
                self._decoder.release()
        result: list[list[Completion]] = [[] for _ in prompts]
        written.sort(key=lambda w: (w.draw.prompt, w.draw.place))
        texts = self.policy.tokenizer.batch_decode([w.tokens for w in written], skip_special_tokens=True)
        for one, text in zip(written, texts, strict=True):
            result[one.draw.prompt].append(self._completion(one, text))
        return [tuple(group) for group in result]

    def limit(self, prompt: Prompt, draw_id: int, sampling: Sampling) -> int:
        """The most tokens that this completion may have."""
        return sampling.max_new_tokens

    def _wanted(
        self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling
    ) -> deque[Request]:
        """All that is asked for, prompts of similar length together."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].token_ids))
        return deque(
            Request(i, place, draw_id, self.limit(prompts[i], draw_id, sampling))
            for i in order
            for place, draw_id in enumerate(draw_ids[i])
        )

    def _decode(
        self, prompts: Sequence[Prompt], waiting: deque[Request], sampling: Sampling, seed: int
    ) -> list[Finished]:
        room = max((draw.limit for draw in waiting), default=0)
        rows = RunningBatch(room, sorted(self.policy.eos_ids), self.policy.device)
        drawing = Scheduler(self.policy.tokenizer, self._begin, rows, prompts, waiting, sampling, seed, room=room)
        on_gpu = self.policy.device.type == "cuda" and self._decoder is not None
        written = drawing.run(ahead=on_gpu, capture=on_gpu)
        if not all(map(isfinite, chain.from_iterable(w.logprobs for w in written))):
            raise NonFiniteError(
                f"{self.policy.source} gives logits that are not numbers, so nothing can be drawn from it. If it did "
                "not before this run, the learning rate is too high"
            )
        return written

    def _begin(self, room: int) -> ModelRunner:
        if self._decoder is not None:
            return PackedRunner(self._decoder, room)
        return TransformersRunner(self.policy, self._model, self._cache_argument)

    def _completion(self, written: Finished, text: str) -> Completion:
        n = len(written.tokens)
        return Completion(
            token_ids=tuple(written.tokens),
            text=text,
            loss_mask=(True,) * n,
            finish=written.finish,
            sample_logprobs=tuple(written.logprobs),
            versions=(self.policy.version,) * n,
            draw_id=written.draw.id,
        )
