"""AdamW over float32 weights, and the learning rate schedule as a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from sharpen.training.settings import OptimizerSettings


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), fused. Weight decay acts on matrices only."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )


def learning_rate(update: int, total: int, settings: OptimizerSettings) -> float:
    """The learning rate of optimizer step ``update``, counted from 0, of ``total``.

    Rises linearly over ``warmup_steps``, then stays constant or decays to ``min_ratio`` of the peak at the last step.
    """
    if update < settings.warmup_steps:
        return settings.learning_rate * (update + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (update - settings.warmup_steps) / max(1, total - 1 - settings.warmup_steps)
    share = 1.0 - done if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return settings.learning_rate * (settings.min_ratio + (1.0 - settings.min_ratio) * share)
