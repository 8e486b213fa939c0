"""Whole GRPO steps of sharpen and of TRL on one device, alternating, each in a process of its own.

Where a model is so large that two would not fit side by side, each gives its unused memory back between its turns;
asking for it again is then part of its next step.
"""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cases import SEED, Case
from contestants import Contestant, Running

from models import letters

LETTERS = 4096
WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class Here(Contestant):
    """A contestant that runs in the environment of the process that measures."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)


@dataclass(frozen=True, slots=True)
class Stepped:
    """Medians of one contestant's steps."""

    model: str
    contestant: str
    seconds: float
    rollout_s: float
    training_s: float
    tokens_per_s: float
    peak_bytes: int
    steps_s: tuple[float, ...]


def sharpen(device: str, tokens_per_microbatch: int | None, *, release: bool) -> Contestant:
    settings = {
        "dtype": "bfloat16",
        "device": device,
        "release": release,
        "training": {"tokens_per_microbatch": tokens_per_microbatch},
    }
    return Here("sharpen", "step_sharpen.py", "", settings)


def rivals(device: str, sequences: int, *, release: bool) -> list[Contestant]:
    """TRL, where it is installed, in two ways: with continuous batching, and with `generate`.

    Both with bfloat16 weights, which is faster than autocast, and with which alone continuous batching works in every
    version: under autocast, accelerate takes the cache for a tensor and fails (transformers 5.24).
    """
    if importlib.util.find_spec("trl") is None:
        return []
    batching = {
        "use_transformers_continuous_batching": True,
        # Room for the keys and values of all completions, and for another process on the same device. On a CPU the
        # room is cleared at every call, for seconds.
        "transformers_continuous_batching_config": {"max_memory_percent": 0.02 if device == "cpu" else 0.2},
        # No token is the end: all completions have the length of the limit.
        "generation_kwargs": {"eos_token_id": -1},
    }
    shared = {
        "device": device,
        "release": release,
        "sequences": sequences,
        "optimizer": "adamw_torch_fused",
        "weights": "bfloat16",
        "autocast": False,
    }
    return [
        Here("TRL, continuous batching", "step_trl.py", "", {**shared, "arguments": batching}),
        Here("TRL, generate", "step_trl.py", "", {**shared, "arguments": {}}),
    ]


def alternate(
    name: str,
    folder: Path,
    case: Case,
    taking_part: Sequence[Contestant],
    repetitions: int,
    logs: Path,
    patience_s: float,
) -> tuple[list[Stepped], dict[str, str]]:
    """Step by step in turn; what each took, and why somebody could not begin or go on, by name.

    Who takes more than ``patience_s`` seconds for a step, or to begin, is out.
    """
    draw = random.Random(SEED)
    alphabet = letters(LETTERS)
    count = case.prompts * (WARM_UPS + repetitions + 1)
    settings = {
        "case": asdict(case),
        "model": str(folder),
        "prompts": ["".join(draw.choices(alphabet, k=case.prompt)) for _ in range(count)],
    }
    running: dict[str, Running] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    try:
        for contestant in taking_part:
            log = logs / f"{name}, {contestant.name}.log"
            try:
                running[contestant.name] = Running(contestant, settings, log, patience_s=patience_s)
            except SystemExit as error:
                failed[contestant.name] = str(error)
        for _ in range(WARM_UPS + repetitions):
            for who in list(running):
                try:
                    answers.setdefault(who, []).append(running[who].step())
                except SystemExit as error:
                    failed[who] = str(error)
                    # Its process has ended.
                    del running[who]
    finally:
        for one in running.values():
            one.end()
    wanted = case.completions * case.limit
    for who, taken in answers.items():
        if who not in failed and any(answer["tokens"] != wanted for answer in taken):
            failed[who] = f"drew {[answer['tokens'] for answer in taken]} tokens instead of {wanted}"
    return [_median(name, who, taken[WARM_UPS:]) for who, taken in answers.items() if who not in failed], failed


def _median(model: str, who: str, taken: Sequence[Mapping[str, Any]]) -> Stepped:
    def of(*names: str) -> list[float]:
        return [answer[names[0]] - sum(answer[other] for other in names[1:]) for answer in taken]

    whole = of("seconds")
    return Stepped(
        model=model,
        contestant=who,
        seconds=statistics.median(whole),
        rollout_s=statistics.median(of("rollout_s")),
        training_s=statistics.median(of("seconds", "rollout_s", "reward_s")),
        tokens_per_s=taken[0]["tokens"] / statistics.median(whole),
        peak_bytes=max(answer["peak_bytes"] for answer in taken),
        steps_s=tuple(whole),
    )
