"""What a causal language model says by its own forward pass, one sequence at a time, and the gradients of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from sharpen.models.progress_bars import without_progress_bars
from sharpen.training.learner import Learner


def plain_model(path: Path) -> nn.Module:
    with without_progress_bars():
        model: nn.Module = AutoModelForCausalLM.from_pretrained(path)
    return model.eval()


def plain_distributions(
    model: nn.Module, prefix: Sequence[int], tokens: Sequence[int], temperature: float = 1.0
) -> Tensor:
    """log π of the whole vocabulary at each of the tokens, [T, V]."""
    ids = torch.tensor([*prefix, *tokens])
    logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prefix) - 1 : -1]
    return (logits / temperature).log_softmax(dim=-1)


def plain_logprobs(model: nn.Module, prefix: Sequence[int], tokens: Sequence[int], temperature: float = 1.0) -> Tensor:
    """log π of each of the tokens, [T]."""
    every_TV = plain_distributions(model, prefix, tokens, temperature)
    return every_TV[torch.arange(len(tokens)), torch.tensor(tokens)]


def plain_gradient(model: nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return _flat(model.parameters())


def record_gradients(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Is filled with the policy's gradient of every update from now on, before it is clipped."""
    found: list[Tensor] = []
    step = Learner.step

    def recording(self: Learner, role: Any, *arguments: Any) -> Any:
        if role == "policy":
            found.append(_flat(self.models[role].parameters()))
        return step(self, role, *arguments)

    monkeypatch.setattr(Learner, "step", recording)
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖Δg‖/‖g‖"""
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def _flat(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in parameters if p.grad is not None])
