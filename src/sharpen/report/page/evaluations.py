"""Held-out evaluations compared: pass@k and maj@k over k, and the change of each measure on the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sharpen.evaluation.estimators import Estimate, estimate
from sharpen.report.page.answers import COLUMNS, REWARD, Answers
from sharpen.report.page.json_text import Json, finite
from sharpen.report.series import held_out
from sharpen.runs.folder import RunFolder
from sharpen.runs.sample_files import SampleFiles

Rows = Sequence[Mapping[str, float]]
RESAMPLES = range(200, 2_001)
"""Of the bootstrap: enough for a picture, whose intervals are a pixel or two more or less exact."""
MOST_DRAWS = 4_000_000
"""Of the bootstrap: with more prompts, intervals are narrower and need fewer resamples."""
MOST_ANSWERS = 100_000
"""Of an evaluation: more take longer than a page may, and show what its metrics say."""


def evaluations(folder: RunFolder, rows: Rows, best: int | None) -> list[Json]:
    """The evaluations before, now and best (at step ``best``), each with pass@k and maj@k for k = 1, 2, 4 … n.

    From the answers on disk; without them or with very many, at the k that the metrics have. Raises DataError for a
    damaged file.
    """
    measured = [int(row["step"]) for row in rows if held_out(row)]
    if not measured:
        return []
    labels = {measured[0]: "before"} | ({measured[-1]: "now"} if measured[-1] != measured[0] else {})
    if best is not None and best not in labels:
        labels[best] = "best"
    by_step = {int(row["step"]): row for row in rows}
    found = []
    for step, label in labels.items():
        curves = _curves(_written(folder, step)) or _from_metrics(by_step[step])
        if curves is not None:
            found.append({"label": label, "step": step, **curves})
    return found


def paired_changes(folder: RunFolder, rows: Rows) -> dict[str, Estimate]:
    """Now − before of each held-out measure: its mean over the prompts that both have, with the interval of that mean.

    The same prompts were asked both times, so what varies between prompts drops out of the difference.
    """
    measured = [row for row in rows if held_out(row)]
    if len(measured) < 2:
        return {}
    before, now = (_written(folder, int(row["step"])) for row in (measured[0], measured[-1]))
    return dict(_changes(before, now, tuple(held_out(measured[-1]))))


@dataclass(frozen=True, slots=True)
class _Written:
    """The answers of an evaluation as they are on disk. While they stay so, what was computed from them holds: a page
    that follows a run asks again after each step."""

    folder: Path
    step: int
    files: tuple[tuple[str, int, int], ...]

    def answers(self) -> Answers | None:
        """None where there are none, or too many."""
        files = SampleFiles(self.folder)
        names = files.columns_of_step(self.step)
        if "right" not in names:
            return None
        table = files.of_step(self.step, [name for name in names if name in COLUMNS or name.startswith(REWARD)])
        return None if table is None or len(table) > MOST_ANSWERS else Answers.of(table)


def _written(folder: RunFolder, step: int) -> _Written:
    return _Written(folder.held_out, step, folder.held_out_files.written(step))


@lru_cache(maxsize=64)
def _curves(written: _Written) -> Json | None:
    answers = written.answers()
    return None if answers is None else _from_answers(answers)


@lru_cache(maxsize=64)
def _changes(before_written: _Written, now_written: _Written, names: Sequence[str]) -> Mapping[str, Estimate]:
    before, now = before_written.answers(), now_written.answers()
    if before is None or now is None:
        return {}
    changes = {}
    for name in names:
        old, new = before.values(name), now.values(name)
        differences = [new[key] - old[key] for key in old if key in new]
        if differences:
            changes[name] = _over_prompts(differences)
    return changes


def resamples_of(prompts: int) -> int:
    """How often the values of so many prompts are resampled, so that the page is ready at once."""
    return min(max(MOST_DRAWS // prompts, RESAMPLES[0]), RESAMPLES[-1])


def _over_prompts(values: Sequence[float]) -> Estimate:
    return estimate(values, resamples=resamples_of(len(values)))


def _from_answers(answers: Answers) -> Json | None:
    n = answers.n
    if n == 0:
        return None
    ks = sorted({2**power for power in range(n.bit_length()) if 2**power <= n} | {n})
    return {
        "n": n,
        "k": ks,
        "pass": [_measured(answers, f"pass@{k}") for k in ks],
        "maj": [_measured(answers, f"maj@{k}") for k in ks] if answers.votes else None,
    }


def _measured(answers: Answers, measure: str) -> Json:
    return _json(_over_prompts([*answers.values(measure).values()]))


def _from_metrics(row: Mapping[str, Any]) -> Json | None:
    measures = held_out(row)
    ks = sorted(int(name[len("pass@") :]) for name in measures if name.startswith("pass@"))
    if not ks:
        return None
    votes = all(f"maj@{k}" in measures for k in ks if k > 1) and len(ks) > 1
    return {
        "n": ks[-1],
        "k": ks,
        "pass": [_json(measures[f"pass@{k}"]) for k in ks],
        # With one answer there is nothing to vote on.
        "maj": [_json(measures["pass@1" if k == 1 else f"maj@{k}"]) for k in ks] if votes else None,
    }


def _json(found: Estimate) -> Json:
    return {"mean": found.mean, "low": finite(found.low), "high": finite(found.high)}
