"""From batches and models to the plain numbers of ``oracles.methods``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oracles.methods import Said, Step
from sharpen.batch import Batch
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.scorer import Scorer
from tiny_models import own_logits, prefix_of_each


def plain_step(batch: Batch) -> Step:
    """What a batch holds, as lists; what it does not hold as an empty one."""

    def rows(tensor_ET: Tensor | None) -> list[list[float]]:
        return [] if tensor_ET is None else tensor_ET.double().tolist()

    def stream(name: str) -> list[list[float]]:
        return rows(batch.streams.get(name))

    steps = [
        {t: value for t, value in enumerate(row) if value == value}
        for row in stream("step_rewards") or [[]] * len(batch)
    ]
    return Step(
        groups=batch.group_E.tolist(),
        tokens=batch.tokens_ET.tolist(),
        mask=batch.mask_ET.tolist(),
        rewards=batch.rewards_E.tolist(),
        truncated=batch.truncated_E.tolist(),
        limit=batch.completion_limit,
        steps=steps,
        sample=stream("rollout_logprobs"),
        old=stream("old_logprobs"),
        reference=stream("ref_logprobs"),
        divergence=stream("kl"),
        values=stream("values"),
        final=batch["final_values"].tolist() if "final_values" in batch else [],
        coefficients=dict(batch.coefficients),
    )


def scalars(rows: list[Tensor]) -> list[list[Tensor]]:
    return [list(row.unbind()) for row in rows]


def said_by(model: Model, batch: Batch, temperature: float, reference: Policy | None = None) -> Said:
    """What a model says of every token, by its own forward, one sequence at a time; a head before and at the token."""
    if isinstance(model, Scorer):
        heads = [model.head(states).squeeze(1) for states in _states(model, batch)]
        return Said(values=scalars([row[:-1] for row in heads]), scores=scalars([row[1:] for row in heads]))
    assert isinstance(model, Policy)
    logs = [(logits / temperature).log_softmax(dim=-1) for logits in own_logits(model.model, batch)]
    said = Said(
        logprobs=scalars(
            [row.gather(1, tokens[:, None])[:, 0] for row, tokens in zip(logs, batch.tokens_ET, strict=True)]
        ),
        entropies=scalars([-(row.exp() * row).sum(dim=-1) for row in logs]),
    )
    if reference is not None:
        with torch.no_grad():
            others = [(logits / temperature).log_softmax(dim=-1) for logits in own_logits(reference.model, batch)]
        said.divergences = scalars([(p.exp() * (p - q)).sum(dim=-1) for p, q in zip(logs, others, strict=True)])
    if model.value_head is not None:
        heads = [model.value_head(states).squeeze(1) for states in _states(model, batch)]
        said.values, said.scores = scalars([row[:-1] for row in heads]), scalars([row[1:] for row in heads])
    return said


def _states(model: Model, batch: Batch) -> list[Tensor]:
    """The last hidden states from the one before the first token of each completion on, [T + 1, H]."""
    body: nn.Module = model.model.model
    rows = []
    for tokens, prefix in zip(batch.tokens_ET, prefix_of_each(batch), strict=True):
        states = body(input_ids=torch.cat([prefix, tokens])[None], use_cache=False).last_hidden_state[0]
        rows.append(states[len(prefix) - 1 :])
    return rows


def forget_gradients(model: Model) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def gradients_of(model: Model) -> dict[str, Tensor]:
    """By the place of the parameter among those that are trained, heads included."""
    return {str(i): p.grad.clone() for i, p in enumerate(model.parameters()) if p.grad is not None}
