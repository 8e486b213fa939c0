"""What saves work in a training pass, each with and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from cases import LEARNING_RATE, Case
from pair import Pair, on_one_thread, under
from synthetic import grpo_batch, random_groups
from torch import Tensor

import sharpen.models.modules
import sharpen.models.packing.microbatches
from sharpen.batch import Batch, Need
from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.kernels import private_torch
from sharpen.models.logprobs import Selected
from sharpen.models.packing.segments import Segments
from sharpen.models.policy import Policy
from sharpen.training.microbatch import usual_tokens
from sharpen.training.optimizer import make_optimizer
from sharpen.training.settings import OptimizerSettings
from sharpen.training.update import accumulate_gradient

LONG = Case("smollm2", prompt=256, limit=24, prompts=4, group=8, spread=False)
SHORT = Case("smollm2", prompt=48, limit=48, prompts=4, group=8)
SMALL = Case("smollm2", prompt=12, limit=16, prompts=16, group=4)
LONG_ROW = 4096
CUT_AT = 800
"""Tokens of a micro-batch, of which SHORT then needs two."""


def training_pairs(policy: Policy) -> list[Pair]:
    long, short, small = (batch_of(policy, case) for case in (LONG, SHORT, SMALL))
    usual = MicrobatchLimits(usual_tokens(policy, LONG.prompt), shared_prompt=True)
    one_row, cut = (replace(usual, tokens_per_microbatch=tokens) for tokens in (LONG_ROW, CUT_AT))
    prompts_head = partial(_head_for_prompts, LONG.prompt * LONG.prompts / long.mask_ET.sum().item())

    def train(batch: Batch, limits: MicrobatchLimits = usual) -> None:
        policy.model.zero_grad(set_to_none=True)
        _add_gradient(policy, batch, limits)

    def train_after(need: Need) -> None:
        found_ET = all_outputs(policy, short, need, 1.0, usual)
        train(short.with_streams(old_logprobs=found_ET) if need == "logprobs" else short)

    def train_by_group() -> None:
        policy.model.zero_grad(set_to_none=True)
        for group in range(SMALL.prompts):
            _add_gradient(policy, small.select((small.group_E == group).nonzero().squeeze(1)), usual)

    return [
        Pair(
            "training: a prompt once for its group, rather than for each completion",
            LONG,
            lambda: train(long),
            lambda: train(long, replace(usual, shared_prompt=False)),
        ),
        Pair(
            "training: several groups to a micro-batch, rather than one",
            SMALL,
            lambda: train(small),
            train_by_group,
        ),
        Pair(
            "training: micro-batches of like work, rather than filled one after another",
            SHORT,
            lambda: train(short, cut),
            under(_filled, lambda: train(short, cut)),
        ),
        Pair(
            "training: attention group by group, rather than under one mask over a long row",
            LONG,
            lambda: train(long, one_row),
            under(_one_mask, lambda: train(long, one_row)),
        ),
        Pair(
            "training: the head for completions only, rather than for prompts too",
            LONG,
            lambda: train(long),
            under(prompts_head, lambda: train(long)),
        ),
        Pair(
            "training: the first update's old log-probabilities from its own pass, rather than from one before",
            SHORT,
            lambda: train(short),
            lambda: train_after("logprobs"),
        ),
        Pair(
            "training: the entropy from the pass that trains, rather than from one of its own",
            SHORT,
            lambda: train(short),
            lambda: train_after("entropy"),
        ),
        Pair(
            "training: two threads, rather than one", SHORT, lambda: train(short), on_one_thread(lambda: train(short))
        ),
    ]


def optimizer_pair(policy: Policy) -> Pair:
    """Both change the weights by what no later pair could notice."""
    parameters = list(policy.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    fused = make_optimizer(parameters, OptimizerSettings(learning_rate=LEARNING_RATE))
    plain = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=False, foreach=False)
    return Pair("AdamW: fused, rather than operation by operation", SHORT, fused.step, plain.step)


def batch_of(policy: Policy, case: Case) -> Batch:
    return grpo_batch(GRPO(group_size=case.group), random_groups(case, policy.config.vocab_size), case.limit)


def _add_gradient(policy: Policy, batch: Batch, limits: MicrobatchLimits) -> None:
    (objective,) = GRPO(group_size=LONG.group).objectives()
    accumulate_gradient(policy, objective, batch, 1.0, limits)


def _filled() -> Any:
    """Micro-batches that take what comes as long as there is room."""

    def fill(work: Sequence[float], tokens: Sequence[int], most_tokens: int) -> list[list[int]]:
        parts: list[list[int]] = [[]]
        for i in range(len(work)):
            if parts[-1] and sum(tokens[j] for j in parts[-1]) + tokens[i] > most_tokens:
                parts.append([])
            parts[-1].append(i)
        return parts

    return mock.patch.object(sharpen.models.packing.microbatches, "balanced", fill)


def _one_mask() -> Any:
    """transformers' own attention, which is told by a mask of [L, L] who sees whom."""

    def attend(config: Any, segments: Segments) -> dict[str, Any]:
        private_torch.set_attention(config, "sdpa")

        def mask() -> Tensor:
            own_L, prompt_L = segments.numbers()
            place_L = torch.arange(segments.length)
            in_prompt = own_L == prompt_L[:, None]
            return (((own_L == own_L[:, None]) & (place_L <= place_L[:, None])) | in_prompt)[None, None]

        return {"attention_mask": segments.derive("one mask", mask)}

    return mock.patch.object(sharpen.models.modules, "attend_to_segments", attend)


def _head_for_prompts(more: float) -> Any:
    """The head also for ``more`` times as many tokens as the completions have, of which nothing comes."""
    selected = sharpen.models.modules.selected_logprobs

    def of_all(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor, *settings: Any, **named: Any) -> Selected:
        count = len(target_N)
        index = torch.arange(count + round(more * count)) % count
        found = selected(hidden_NH[index], weight_VH, target_N[index], *settings, **named)
        return Selected(found.logprobs_N[:count], found.entropy_N[:count], None)

    return mock.patch.object(sharpen.models.modules, "selected_logprobs", of_all)
