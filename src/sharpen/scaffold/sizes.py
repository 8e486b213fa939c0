"""How long completions, steps and rates should be to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.scaffold.machine import Machine
from sharpen.scaffold.model_facts import ModelFacts
from sharpen.system.memory import GIB

RATES = {
    "sft": (5e-4, 5e-5, 2e-5, 1e-5),
    "dpo": (1e-4, 5e-6, 1e-6, 5e-7),
    "grpo": (1e-4, 2e-5, 2e-6, 1e-6),
    "process_reward_model": (3e-4, 5e-5, 1e-5, 1e-5),
}
"""Learning rates by method, for models below each of SIZES and above; small models take larger steps."""
SIZES = (20e6, 300e6, 3e9)

LORA_FACTOR = 10
TRAINED_BYTES, FROZEN_BYTES = 16, 4
"""Of a weight in float32: with its gradient and Adam's two moments, and alone."""
SHARE_FOR_WEIGHTS = 0.6
"""Of the memory; the rest is for activations, and keys and values."""


def learning_rate(method: str, parameters: int | None, *, lora: bool) -> float:
    """The usual peak rate; a model of unknown size counts as one of a billion weights."""
    size = sum((parameters or 1e9) >= limit for limit in SIZES)
    return float(f"{RATES[method][size] * (LORA_FACTOR if lora else 1):.1g}")


def needs_lora(method: str, parameters: int, machine: Machine) -> bool:
    """Whether training all weights would take too much of the memory."""
    copies = TRAINED_BYTES + (FROZEN_BYTES if method == "dpo" else 0)
    return parameters * copies > SHARE_FOR_WEIGHTS * machine.memory_gib * GIB


@dataclass(frozen=True, slots=True)
class Room:
    """The longest completion, and how many of the rows do not fit beside it into the context."""

    max_new_tokens: int
    too_long: int


def room_for_completions(wanted: int, prompts: Sequence[int], context: int | None) -> Room:
    """``wanted`` tokens, or fewer where that lets every prompt in; ``prompts`` are their lengths in tokens."""
    if context is None or max(prompts) + wanted <= context:
        return Room(wanted, 0)
    left = context - max(prompts)
    # Half of what completions need is still enough for most of them.
    if left >= wanted / 2:
        return Room(left, 0)
    wanted = min(wanted, context // 2)
    return Room(wanted, sum(length + wanted > context for length in prompts))


def with_margin(lengths: Sequence[int], factor: float, least: int) -> int:
    """The longest of some lengths times ``factor``, rounded up to a multiple of 8, and at least ``least``."""
    return max(least, -(-round(max(lengths) * factor) // 8) * 8)


def batch_size(method: str, rows: int, machine: Machine) -> int:
    usual = {"grpo": (8, 32)}.get(method, (16, 64))[machine.gpu is not None]
    return min(rows, usual)


def step_count(method: str, rows: int, batch: int, machine: Machine) -> int:
    """Epochs over the data, within bounds that a first run should have on this machine."""
    epochs = {"sft": 3, "grpo": 10}.get(method, 1)
    most = {"grpo": (60, 200)}.get(method, (300, 1000))[machine.gpu is not None]
    return max(10, min(most, round(epochs * rows / batch)))


def known_size(model: ModelFacts) -> str:
    """A model's size in words."""
    if model.parameters is None:
        return "a model of unknown size"
    if model.parameters < 1e6:
        return f"{model.parameters:,} weights"
    return f"{model.parameters / 1e6:.0f} million weights"
