"""Histories of runs, made by hand, in whose figures a person sees what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.report.diagnosis.diagnose import diagnose
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, Row
from sharpen.report.diagnosis.samples import StepSamples
from sharpen.types import Finish, Group, Prompt, Score, single_turn
from tiny_runs import tiny_recipe

Column = float | Sequence[float] | None
"""The values of a metric over the steps; one number: the same at each; None: the metric is not there."""

USUAL: Mapping[str, float] = {
    "loss": 0.001,
    "grad_norm": 0.5,
    "updates/applied": 2,
    "updates/skipped": 0,
    "length/mean": 100.0,
    "truncated": 0.02,
    "reward/mean": 0.5,
    "reward/std": 0.5,
    "groups/zero_spread": 0.1,
    "reward/failed": 0.0,
    "reward/timed_out": 0.0,
    "entropy": 0.3,
    "kl": 0.01,
    "clip_fraction": 0.01,
    "ratio/p99.9": 1.1,
    "ratio/noise": 1e-7,
    "mismatch/mean": 1e-6,
    "mismatch/max": 1e-5,
    "time/rollout_s": 1.0,
}
"""The figures of a usual step of GRPO."""

IMITATING: Mapping[str, float] = {
    "loss": 1.0,
    "grad_norm": 0.5,
    "updates/applied": 1,
    "updates/skipped": 0,
    "length/mean": 100.0,
    "truncated": 0.0,
    "entropy": 0.5,
}
"""Those of a usual step of SFT."""


def facts(method: str = "grpo", /, **changes: Any) -> Facts:
    """A recipe of four prompts with four completions each, of at most eight tokens."""
    changes = {"checkpoint": {"best": None}, **changes}
    return Facts(tiny_recipe(Path("run"), Path("model"), method, **changes).model_dump(mode="json"))


def steps(count: int, usual: Mapping[str, float] = USUAL, /, *, begin: int = 1, **columns: Column) -> list[Row]:
    """Rows of so many steps; a metric ``a/b`` is given as ``a__b``."""
    named = {**usual, **{name.replace("__", "/"): column for name, column in columns.items()}}
    return [
        {
            "step": begin + at,
            **{
                name: column if isinstance(column, int | float) else column[at]
                for name, column in named.items()
                if column is not None
            },
        }
        for at in range(count)
    ]


def wave(count: int, mean: float, height: float) -> list[float]:
    """Values about a mean, without a trend."""
    return [mean + height * math.sin(2.4 * at) for at in range(count)]


def ramp(count: int, first: float, last: float, height: float = 0.0) -> list[float]:
    """Values from one to another, with a wave on them."""
    line = [first + (last - first) * at / (count - 1) for at in range(count)]
    return [a + b for a, b in zip(line, wave(count, 0.0, height), strict=True)]


def measured(measure: str, at: Mapping[int, tuple[float, float, float]], rows: Sequence[Row]) -> list[Row]:
    """The rows with the (mean, low, high) of a held-out measure at these steps, step 0 included."""
    by_step: dict[int, dict[str, float]] = {int(row["step"]): dict(row) for row in rows}
    for step, (mean, low, high) in at.items():
        key = f"held_out/{measure}"
        by_step.setdefault(step, {"step": step}).update({key: mean, f"{key}_low": low, f"{key}_high": high})
    return [by_step[step] for step in sorted(by_step)]


def group(prompt_id: str, completions: Sequence[Mapping[str, Any]]) -> Group:
    """A prompt's trajectories: ``reward``, ``tokens``, ``parts``, ``cut_off``, ``error``, ``refused`` of each."""
    return Group(
        Prompt(prompt_id, (1, 2), "", {}),
        tuple(
            single_turn(
                (1, 2),
                (3,) * one.get("tokens", 10),
                "",
                finish=Finish.LENGTH if one.get("cut_off") else Finish.EOS,
                score=Score(
                    one.get("reward"), one.get("parts", {}), error=one.get("error"), refused=one.get("refused")
                ),
            )
            for one in completions
        ),
    )


def samples(begin: int, count: int, groups: Sequence[Group]) -> list[StepSamples]:
    """The same groups in each of so many steps."""
    return [StepSamples.of_groups(step, groups) for step in range(begin, begin + count)]


def found(history: History) -> dict[str, Finding]:
    """The findings by their ids."""
    return {finding.id: finding for finding in diagnose(history)}
