"""The rollout engine in this process: any causal language model of transformers, on CPU or GPU."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.kv_cache import make_cache, select_rows
from sharpen.rollout.sampling import choose, uniforms
from sharpen.types import Completion, Finish, Prompt, Segment

COMPACT_AT = 0.75
"""Rows leave the batch once no more than this share of it is alive."""


class LocalEngine:
    """Draws completions from a policy. Prompts are computed once per group; finished rows leave the batch."""

    def __init__(self, policy: Policy) -> None:
        """Raises ModelError for an architecture whose past is no key–value cache: it would silently forget it."""
        if "past_key_values" not in inspect.signature(policy.model.forward).parameters:
            raise ModelError(
                f"{policy.source}: the local engine cannot draw from a model of type {policy.config.model_type}, "
                "which keeps its past in something else than a key–value cache"
            )
        self.policy = policy
        self._model: nn.Module = policy.model
        self.publish()

    def publish(self) -> None:
        """Take over the policy's present weights.

        In float32 the engine computes with the very weights of the trainer. In bfloat16 it keeps a rounded copy of
        the matrices, the same rounding that autocast applies at every use, and shares all else.
        """
        if self.policy.compute_dtype == "bfloat16":
            if self._model is self.policy.model:
                self._model = _with_rounded_matrices(self.policy.model)
            else:
                _round_matrices(self.policy.model, self._model)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[Completion, ...]]:
        """One completion of prompt i for each id in ``draw_ids[i]``; its randomness is that of (seed, id) alone."""
        training = self._model.training
        self._model.eval()
        result: list[tuple[Completion, ...]] = [()] * len(prompts)
        try:
            for wave in _waves(prompts, draw_ids, sampling.max_sequences):
                drawn = self._decode([prompts[i] for i, _ in wave], [ids for _, ids in wave], sampling, seed)
                for (i, _), completions in zip(wave, drawn, strict=True):
                    result[i] += completions
        finally:
            self._model.train(training)
        return result

    def _decode(
        self, prompts: list[Prompt], draw_ids: list[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[Completion, ...]]:
        policy, device = self.policy, self.policy.device
        group_B = torch.repeat_interleave(torch.tensor([len(ids) for ids in draw_ids]))
        ids = [i for group in draw_ids for i in group]
        uniform_BT = uniforms(seed, ids, sampling.max_new_tokens).to(device)
        eos = torch.tensor(sorted(policy.eos_ids), device=device)
        drawn = _Drawn(len(ids), sampling, device)

        with policy.autocast():
            logits_PV, cache, visible_PL, next_position_P = self._prefill(prompts)
            group_on_device = group_B.to(device)
            select_rows(cache, group_on_device)
            logits_BV = logits_PV[group_on_device]
            visible_BL, position_B = visible_PL[group_on_device], next_position_P[group_on_device]
            row_B = torch.arange(len(ids), device=device)
            for t in range(sampling.max_new_tokens):
                token_B, logprob_B = choose(logits_BV, uniform_BT[row_B, t], sampling.truncation)
                ended_B = torch.isin(token_B, eos)
                drawn.record(row_B, t, token_B, logprob_B, ended_B)
                if sampling.stop:
                    self._apply_stop_strings(drawn, row_B, t, sampling.stop)
                alive_B = drawn.open_B[row_B]
                alive = int(alive_B.sum())
                if alive == 0 or t + 1 == sampling.max_new_tokens:
                    break
                if alive <= COMPACT_AT * len(row_B):
                    keep = alive_B.nonzero().squeeze(1)
                    select_rows(cache, keep)
                    row_B, token_B, position_B, visible_BL = (x[keep] for x in (row_B, token_B, position_B, visible_BL))
                visible_BL = torch.cat([visible_BL, visible_BL.new_ones(len(row_B), 1)], dim=1)
                logits_BV = self._forward(token_B[:, None], position_B[:, None], visible_BL, cache)
                position_B = position_B + 1
        if not drawn.logprobs_BT.isfinite().all():
            raise FloatingPointError(
                f"{policy.source} gives logits that are not numbers, so nothing can be drawn from it. If it did not "
                "before this run, the learning rate is too high"
            )
        completions = drawn.completions(policy, ids)
        ends = torch.tensor([len(group) for group in draw_ids]).cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        return [tuple(completions[a:b]) for a, b in zip(starts, ends, strict=True)]

    def _prefill(self, prompts: list[Prompt]) -> tuple[Tensor, Any, Tensor, Tensor]:
        """Run each prompt once. Prompts are padded on the left, so that all rows write at the same place."""
        policy, device = self.policy, self.policy.device
        lengths = [len(p.token_ids) for p in prompts]
        width = max(lengths)
        input_PL = torch.full((len(prompts), width), policy.pad_id)
        visible_PL = torch.zeros((len(prompts), width), dtype=torch.bool)
        for p, prompt in enumerate(prompts):
            input_PL[p, width - lengths[p] :] = torch.tensor(prompt.token_ids)
            visible_PL[p, width - lengths[p] :] = True
        position_PL = (visible_PL.cumsum(dim=1) - 1).clamp(min=0)
        bfloat16 = policy.compute_dtype == "bfloat16"
        cache = make_cache(policy.config, torch.bfloat16 if bfloat16 else None)
        input_PL, visible_PL, position_PL = (x.to(device) for x in (input_PL, visible_PL, position_PL))
        logits_PV = self._forward(input_PL, position_PL, visible_PL, cache)
        return logits_PV, cache, visible_PL, torch.tensor(lengths, device=device)

    def _forward(self, input_ids: Tensor, position_ids: Tensor, visible: Tensor, cache: Any) -> Tensor:
        """Logits of the token that follows the last, [B, V]."""
        mask: Tensor | None = visible
        if self.policy.plain:
            mask = visible[:, None, None, :]
            if (width := input_ids.shape[1]) > 1:
                causal = torch.ones(width, width, dtype=torch.bool, device=visible.device).tril()
                # A padded query sees itself, to avoid 0/0; nobody sees it.
                mask = (mask & causal) | torch.eye(width, dtype=torch.bool, device=visible.device)
        output = self._model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _apply_stop_strings(self, drawn: _Drawn, row_B: Tensor, t: int, stop: tuple[str, ...]) -> None:
        rows = row_B[drawn.open_B[row_B]]
        # A token holds at least one byte of text unless it is special, so this window covers the longest string.
        window = max(len(s.encode()) for s in stop) + 8
        tails = drawn.tokens_BT[rows, max(0, t + 1 - window) : t + 1].tolist()
        texts = self.policy.tokenizer.batch_decode(tails, skip_special_tokens=True)
        hit = [any(s in text for s in stop) for text in texts]
        drawn.close(rows[torch.tensor(hit, dtype=torch.bool, device=rows.device)], Finish.STOP)


class _Drawn:
    """What has been drawn so far, a row for each completion."""

    def __init__(self, rows: int, sampling: Sampling, device: torch.device) -> None:
        self.tokens_BT = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
        self.logprobs_BT = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.float64, device=device)
        self.length_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.open_B = torch.ones(rows, dtype=torch.bool, device=device)
        self._ended_by: dict[Finish, Tensor] = {
            finish: torch.zeros(rows, dtype=torch.bool, device=device) for finish in (Finish.EOS, Finish.STOP)
        }

    def record(self, row_B: Tensor, t: int, token_B: Tensor, logprob_B: Tensor, ended_B: Tensor) -> None:
        """Note a token for each row that is still open; rows that wait to leave the batch are passed over."""
        open_B = self.open_B[row_B]
        rows = row_B[open_B]
        self.tokens_BT[rows, t] = token_B[open_B]
        self.logprobs_BT[rows, t] = logprob_B[open_B].double()
        self.length_B[rows] = t + 1
        self.close(rows[ended_B[open_B]], Finish.EOS)

    def close(self, rows: Tensor, finish: Finish) -> None:
        self.open_B[rows] = False
        self._ended_by[finish][rows] = True

    def completions(self, policy: Policy, draw_ids: Sequence[int]) -> list[Completion]:
        tokens, logprobs, lengths = self.tokens_BT.tolist(), self.logprobs_BT.tolist(), self.length_B.tolist()
        ended = {finish: flags.tolist() for finish, flags in self._ended_by.items()}
        token_ids = [row[:n] for row, n in zip(tokens, lengths, strict=True)]
        texts = policy.tokenizer.batch_decode(token_ids, skip_special_tokens=True)
        return [
            Completion(
                token_ids=tuple(token_ids[b]),
                text=texts[b],
                trained=(True,) * n,
                segments=(Segment(0, n, "model"),),
                finish=next((f for f in (Finish.EOS, Finish.STOP) if ended[f][b]), Finish.LENGTH),
                sample_logprobs=tuple(logprobs[b][:n]),
                versions=(policy.version,) * n,
                draw_id=draw_ids[b],
            )
            for b, n in enumerate(lengths)
        ]


def _waves(
    prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], max_sequences: int
) -> Iterator[list[tuple[int, Sequence[int]]]]:
    """Prompts of similar length together, at most ``max_sequences`` completions at a time."""
    wave: list[tuple[int, Sequence[int]]] = []
    room = max_sequences
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i].token_ids)):
        ids = draw_ids[i]
        while ids:
            wave.append((i, ids[:room]))
            ids, room = ids[room:], room - len(ids[:room])
            if room == 0:
                yield wave
                wave, room = [], max_sequences
    if wave:
        yield wave


def _with_rounded_matrices(model: nn.Module) -> nn.Module:
    """A copy of the model whose linear layers hold bfloat16 weights of their own; everything else is shared."""
    twin = copy.deepcopy(model, memo={id(t): t for t in (*model.parameters(), *model.buffers())})
    for module in twin.modules():
        if isinstance(module, nn.Linear):
            for name, parameter in list(module.named_parameters(recurse=False)):
                rounded = parameter.detach().to(torch.bfloat16)
                module._parameters[name] = nn.Parameter(rounded, requires_grad=False)
    return twin


@torch.no_grad()
def _round_matrices(model: nn.Module, twin: nn.Module) -> None:
    for module, other in zip(model.modules(), twin.modules(), strict=True):
        if isinstance(module, nn.Linear):
            for ours, theirs in zip(module.parameters(recurse=False), other.parameters(recurse=False), strict=True):
                theirs.copy_(ours)
