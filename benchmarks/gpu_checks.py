"""Before anything is timed: does the device compute what the CPU computes? In float32, on a model of random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from cases import SEED, Case
from forced_sharpen import engine_of_lengths
from gpu_device import scheduled
from synthetic import grpo_batch, random_groups, random_prompts
from torch import Tensor

from sharpen.batch import Batch
from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.kernels.attention import attention_over_segments
from sharpen.models.kernels.flash import fits, flash_over_segments, spans_of
from sharpen.models.packing.segments import Segment, Segments
from sharpen.models.policy import Policy, load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.sampling import uniforms
from sharpen.training.update import accumulate_gradient
from sharpen.types import Group, Prompt, Trajectory

CASE = Case("checks", prompt=24, limit=160, prompts=3, group=6)
TOLERANCE = 1e-4
BFLOAT16_TOLERANCE = 5e-2
EDGE = 1e-5
"""How far rounding can move the edge between two tokens in the cumulative distribution."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was compared, what came out, and whether it is as it should be."""

    name: str
    result: str
    passed: bool


def checks(folder: Path, device: str) -> dict[str, Callable[[], Check]]:
    """By name. Completions have ragged lengths: rows leave, and others come in."""
    torch.backends.cuda.matmul.allow_tf32 = False
    cpu, there = (load_policy(folder, compute_dtype="float32", device=d) for d in ("cpu", device))
    rounded = load_policy(folder, compute_dtype="bfloat16", device=device)
    return {
        "completions as the engine draws them": partial(_same_tokens, cpu, there, {}),
        "the same without a CUDA graph": partial(_same_tokens, cpu, there, {"cuda_graph": False}),
        "the same, checking before decoding": partial(
            _same_tokens, cpu, there, {"decode_first": False, "cuda_graph": False}
        ),
        "the same, checking after decoding": partial(
            _same_tokens, cpu, there, {"decode_first": True, "cuda_graph": False}
        ),
        "packed log-probabilities against the plain forward's": partial(_packed_logprobs, there),
        "the rollout's log-probabilities against the trainer's": partial(_rollout_logprobs, there),
        "the gradient against the CPU's": partial(_same_gradient, cpu, there),
        "the gradient in bfloat16 against the CPU's": partial(_same_gradient, cpu, rounded, BFLOAT16_TOLERANCE),
        "attention in bfloat16 against the CPU's": partial(_same_attention, device),
        **({"how often the host waits": partial(_waits, there)} if device == "cuda" else {}),
    }


def _draw(policy: Policy) -> list[Trajectory]:
    # Fewer rows at a time than are asked for: some have to wait.
    engine = engine_of_lengths(CASE.lengths())(policy, max_sequences=CASE.completions // 2)
    draw_ids = [range(p * CASE.group, (p + 1) * CASE.group) for p in range(CASE.prompts)]
    drawn = generate(engine, _prompts(policy), draw_ids, Sampling(CASE.limit), seed=SEED)
    return [completion for group in drawn for completion in group]


def _prompts(policy: Policy) -> list[Prompt]:
    return random_prompts(CASE, policy.config.vocab_size)


def _same_tokens(cpu: Policy, there: Policy, chosen: dict[str, bool]) -> Check:
    expected = _draw(cpu)
    with scheduled(**chosen):
        drawn = _draw(there)
    different = [b for b, (a, c) in enumerate(zip(expected, drawn, strict=True)) if a.token_ids != c.token_ids]
    strange = [b for b in different if not _rounded(cpu, b, expected[b].token_ids, drawn[b].token_ids)]
    same, rounded = len(expected) - len(different), len(different) - len(strange)
    name = "completions, " + (", ".join(f"{n} {value}" for n, value in chosen.items()) or "as the engine draws them")
    return Check(
        name, f"{same} of {len(expected)} equal the CPU's; {rounded} of the others part by rounding", not strange
    )


@torch.no_grad()
def _rounded(cpu: Policy, b: int, expected: tuple[int, ...], drawn: tuple[int, ...]) -> bool:
    """Whether at the first token that differs the uniform number lies at the edge of both tokens' shares."""
    if len(expected) != len(drawn):
        return False
    t = next(i for i, (a, c) in enumerate(zip(expected, drawn, strict=True)) if a != c)
    before = [*_prompts(cpu)[b // CASE.group].token_ids, *expected[:t]]
    logits_V = cpu.model(input_ids=torch.tensor([before])).logits[0, -1]
    edge_V = logits_V.double().softmax(dim=0).cumsum(dim=0)
    number = float(uniforms(SEED, [b], t + 1)[0, t])
    low, high = sorted((expected[t], drawn[t]))
    return abs(float(edge_V[low]) - number) < EDGE and abs(float(edge_V[high - 1]) - number) < EDGE


@torch.no_grad()
def _packed_logprobs(policy: Policy) -> Check:
    batch = grpo_batch(GRPO(group_size=CASE.group), random_groups(CASE, policy.config.vocab_size), CASE.limit)
    error = _largest(_trainers(policy, batch) - _plain_logprobs(policy, batch))
    return Check("packed log-probabilities − the plain forward's", f"at most {error:.1e}", error < TOLERANCE)


def _rollout_logprobs(policy: Policy) -> Check:
    completions = _draw(policy)
    members = [tuple(completions[p * CASE.group : (p + 1) * CASE.group]) for p in range(CASE.prompts)]
    groups = random_groups(CASE, policy.config.vocab_size)
    own = [Group(group.prompt, drawn).scored(group.scores) for group, drawn in zip(groups, members, strict=True)]
    batch = grpo_batch(GRPO(group_size=CASE.group), own, CASE.limit)
    error = _largest(_trainers(policy, batch) - batch["rollout_logprobs"].float())
    return Check("the trainer's log-probabilities − the rollout's", f"at most {error:.1e}", error < TOLERANCE)


def _same_gradient(cpu: Policy, there: Policy, tolerance: float = TOLERANCE) -> Check:
    """Of a step of GRPO in several micro-batches: ‖difference‖ / ‖CPU's‖ of all parameters together."""
    method = GRPO(group_size=CASE.group)
    batch = grpo_batch(method, random_groups(CASE, cpu.config.vocab_size), CASE.limit)
    (objective,) = method.objectives()
    for policy in (cpu, there):
        policy.model.zero_grad(set_to_none=True)
        accumulate_gradient(policy, objective, batch, 1.0, MicrobatchLimits(1024, shared_prompt=True))
    pairs = [(a.grad, b.grad) for a, b in zip(cpu.parameters(), there.parameters(), strict=True)]
    found, wanted = (
        torch.cat([x.detach().cpu().flatten() for x in column if x is not None]) for column in zip(*pairs, strict=True)
    )
    error = float((wanted - found).norm() / found.norm())
    name = f"the gradient in {there.compute_dtype} − the CPU's in float32, relative"
    return Check(name, f"{error:.1e}", error < tolerance)


def _same_attention(device: str) -> Check:
    """Groups of unequal sizes in one row, values and gradients: the largest ‖difference‖ / ‖CPU's in float32‖."""
    segments, start = [], 0
    for prompt, answers in ((300, (40, 1, 150)), (7, ()), (1, (130,)), (128, (128, 64))):
        begun, start = start, start + prompt
        segments.append(Segment(begun, start))
        for length in answers:
            segments.append(Segment(start, start + length, begun, begun + prompt))
            start += length
    draw = torch.Generator().manual_seed(SEED)
    q, k, v, upstream = (torch.randn(1, heads, start, 64, generator=draw) for heads in (6, 2, 2, 6))
    results = []
    for where, dtype in (("cpu", torch.float32), (device, torch.bfloat16)):
        row = Segments(tuple(segments), start, torch.device(where))
        inputs = [x.to(where, dtype).detach().requires_grad_() for x in (q, k, v)]
        with torch.autocast(where, dtype=torch.bfloat16, enabled=dtype != torch.float32):
            by_flash = fits(row.device, 64)
            mixed = (
                flash_over_segments(*inputs, spans_of(row), 0.125)
                if by_flash
                else attention_over_segments(*inputs, row, 0.125)
            )
        mixed.backward(upstream.to(where, dtype))
        results.append([x.detach().float().cpu() for x in (mixed, *(i.grad for i in inputs if i.grad is not None))])
    error = max(float((b - a).norm() / a.norm()) for a, b in zip(*results, strict=True))
    how = "FlashAttention" if by_flash else "tiles"
    return Check(f"attention in bfloat16 by {how} − the CPU's, relative", f"at most {error:.1e}", error < 2e-2)


def _waits(there: Policy) -> Check:
    """Two draws that differ in the length of their completions alone, and what PyTorch reports as a wait in each."""
    short, long = (_waits_of(there, length) for length in (40, 100))
    result = f"{long - short} more for 60 tokens more; {short - 40} besides"
    return Check("waits of the host for the device while completions are drawn", result, long - short == 60)


def _waits_of(policy: Policy, length: int) -> int:
    case = replace(CASE, limit=length, spread=False)
    engine = engine_of_lengths(case.lengths())(policy)
    draw_ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            generate(engine, _prompts(policy), draw_ids, Sampling(length), seed=SEED)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def _trainers(policy: Policy, batch: Batch) -> Tensor:
    return all_outputs(policy, batch, "logprobs", 1.0, MicrobatchLimits(2048, shared_prompt=True))


def _largest(difference_ET: Tensor) -> float:
    return float(difference_ET.abs().max())


def _plain_logprobs(policy: Policy, batch: Batch) -> Tensor:
    """transformers' own forward pass, one sequence after another, [E, T]; 0 where nothing is trained."""
    logprobs_ET = torch.zeros(batch.tokens_ET.shape)
    # One completion per trajectory, so the samples are the rows.
    for b, prefix in enumerate(batch.samples.prefix_B.tolist()):
        prompt, length = batch.prefixes[prefix], int(batch.mask_ET[b].sum())
        tokens = batch.tokens_ET[b, :length].long()
        logits_LV = policy.model(input_ids=torch.cat([prompt, tokens])[None].to(policy.device)).logits[0]
        predicted = logits_LV[len(prompt) - 1 : -1].double().log_softmax(dim=-1).cpu()
        logprobs_ET[b, :length] = predicted.gather(1, tokens[:, None]).squeeze(1).float()
    return logprobs_ET
