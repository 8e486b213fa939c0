"""What two processes do in `test_sharded.py`: the same with whole and with sharded models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from sharpen.batch import Batch, Need, Outputs
from sharpen.models.adapter import adapter_weights
from sharpen.models.load import prepare
from sharpen.models.lora import add_adapter
from sharpen.models.model import Model
from sharpen.models.packing.pack import PackedRow
from sharpen.models.policy import Policy
from sharpen.models.reference import average, base_policy, frozen, second_adapter
from sharpen.models.scorer import load_scorer
from tiny_models import ragged_batch, tiny_policy, weighted

WORLD = 2


@dataclass(frozen=True)
class Case:
    architecture: str
    tied: bool = False
    reference: str = "model"
    lora: bool = False
    scorer: bool = False


CASES = {
    "llama": Case("llama"),
    "llama, tied head": Case("llama", tied=True),
    "qwen2": Case("qwen2"),
    "qwen2, tied head": Case("qwen2", tied=True),
    "lora, its base": Case("llama", lora=True, reference="base"),
    "lora, tied head, a second adapter": Case("qwen2", tied=True, lora=True, reference="adapter"),
    "scorer": Case("llama", scorer=True),
    "padded rows": Case("gpt2"),
}


def compare(rank: int, store: str, model: str) -> None:
    """Asserts, on each of the processes, that sharding changes neither outputs nor gradients nor updates.

    ``model`` is the folder that the scorer is made from.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    try:
        for name, case in CASES.items():
            _compare(name, case, rank, model)
    finally:
        dist.destroy_process_group()


def _compare(name: str, case: Case, rank: int, model: str) -> None:
    batch = ragged_batch(20)
    (whole, whole_reference), (sharded, reference) = _models(case, model), _models(case, model)
    roots = {id(m.root): m.root for m in (sharded, reference) if m is not None}
    for root in roots.values():
        _shard(root, case)
    assert all(isinstance(p, DTensor) for p in sharded.root.parameters()), name
    rows = _rows(batch, whole)
    needs: frozenset[Need] = (
        frozenset({"scores"}) if case.scorer else frozenset({"logprobs", "entropy", "exact_kl", "values"})
    )
    for step in range(2):
        expected = [_backward(whole, batch, part, needs, whole_reference) for part in rows]
        with torch.no_grad():
            sharded.outputs(batch, rows[rank], 1.3, needs, reference)
        found = _backward(sharded, batch, rows[rank], needs, reference)
        assert found.keys() == expected[rank].keys(), name
        for need, one in found.items():
            other = expected[rank][need]
            error = (one - other).abs().max().item()
            assert torch.equal(one, other) if step == 0 else error < 1e-5, (name, step, need, error)
        mine, theirs = _gradients(sharded), _gradients(whole)
        assert mine.keys() == theirs.keys(), name
        difference = torch.stack([(mine[n] - theirs[n]).norm() for n in theirs]).norm()
        relative = (difference / torch.stack([g.norm() for g in theirs.values()]).norm()).item()
        assert relative < 1e-6, (name, step, relative)
        # Weights may be changed in place only while they are sharded.
        for root in roots.values():
            for module in root.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()
        for model, other in ((whole, whole_reference), (sharded, reference)):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.01 * parameter.grad
                    parameter.grad = None
            if isinstance(model, Policy) and case.reference != "base":
                assert isinstance(other, Policy)
                average(other, model, 0.9)


def _models(case: Case, folder: str) -> tuple[Model, Policy | None]:
    settings: dict[str, Any] = {} if case.architecture == "gpt2" else {"tie_word_embeddings": case.tied}
    if case.scorer:
        scorer = load_scorer(folder, kind="token", device="cpu")
        _fill(scorer.head, 3)
        return scorer, None
    policy, reference = (tiny_policy(case.architecture, seed=seed, **settings) for seed in (0, 7))
    for each in (policy, reference):
        prepare(each.model, device="cpu", gradient_checkpointing=False)
    if case.lora:
        add_adapter(policy, rank=2, alpha=4, targets="all-linear", seed=1)
        with torch.no_grad():
            for number, parameter in enumerate(adapter_weights(policy.model, None).values()):
                parameter.copy_(0.3 * _noise(parameter, number))
        reference = base_policy(policy) if case.reference == "base" else second_adapter(policy)
    else:
        reference = frozen(reference)
    policy.add_value_head()
    assert policy.value_head is not None
    _fill(policy.value_head, 3)
    return policy, reference


@torch.no_grad()
def _fill(head: torch.nn.Linear, seed: int) -> None:
    for parameter in head.parameters():
        parameter.copy_(_noise(parameter, seed))


def _noise(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def _shard(root: torch.nn.Module, case: Case) -> None:
    body: Any = root.model.base_model
    for module in (*(body.h if case.architecture == "gpt2" else body.layers), root):
        fully_shard(module)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            # Gradients are summed over processes.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _rows(batch: Batch, model: Model) -> list[list[PackedRow]]:
    """One micro-batch for each process, of different sizes."""
    groups = {g: [b for b in range(len(batch)) if batch.group_E[b] == g and batch.mask_ET[b].any()] for g in range(4)}
    shares = ((0, 2), (1, 3))
    if model.plain:
        return [[PackedRow(g, tuple(groups[g]), 0) for g in share if groups[g]] for share in shares]
    return [[PackedRow(g, (b,), 0) for g in share for b in groups[g]] for share in shares]


def _backward(
    model: Model, batch: Batch, rows: list[PackedRow], needs: frozenset[Need], reference: Policy | None
) -> Outputs:
    outputs = model.outputs(batch, rows, 1.3, needs, reference)
    terms = [term for term in outputs.values() if term.requires_grad]
    torch.stack([(k + 1) * (weighted(batch) * term).sum() for k, term in enumerate(terms)]).sum().backward()
    return outputs


def _gradients(model: Model) -> dict[str, Tensor]:
    return {
        name: (p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad).clone()
        for name, p in model.root.named_parameters()
        if p.grad is not None
    }
