"""A run at a glance: what was trained and how, whether it is better, what it took, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.evaluation.estimators import Estimate
from sharpen.report.measured import Measured
from sharpen.report.page.json_text import Json, finite
from sharpen.report.page.recipe_text import at, named
from sharpen.report.series import held_out
from sharpen.runs.metric_catalogue import describe

Rows = Sequence[Mapping[str, float]]

PARTS = ("rollout", "reward", "training", "evaluation")
"""The parts of a run's time that the metrics name, as in ``time/rollout_s``."""


def glance(
    recipe: Mapping[str, Any],
    recipe_text: str,
    rows: Rows,
    *,
    starts: Sequence[Mapping[str, Any]],
    changes: Sequence[str],
    best_step: int | None,
    paired: Mapping[str, Estimate],
    status: str,
) -> Json:
    """``starts`` are the lines of ``starts.jsonl``, ``paired`` the changes of measures over the same prompts."""
    measures = _measures(rows, best_step, paired)
    method = str(at(recipe, "method.name"))
    step = int(rows[-1]["step"]) if rows else 0
    steps = at(recipe, "training.steps")
    sentence, paper = _sentence(method, starts)
    latest = starts[-1] if starts else {}
    return {
        "headline": _headline(method, named(at(recipe, "model")), measures, rows, step, steps, status),
        "method": method,
        "sentence": sentence,
        "paper": paper,
        "model": {
            "path": named(at(recipe, "model")),
            "parameters": latest.get("parameters"),
            "lora": at(recipe, "model.lora") is not None,
        },
        "step": step,
        "steps": steps,
        "started": starts[0].get("time") if starts else None,
        "duration_s": sum(row.get("time/step_s", 0.0) + row.get("time/evaluation_s", 0.0) for row in rows),
        "tokens": {"rollout": _drawn(rows), "training": _computed(rows)},
        "time": _time(rows),
        "measures": measures,
        "made_from": _made_from(recipe, latest),
        "recipe": recipe_text,
        "changes": list(changes),
    }


def _sentence(method: str, starts: Sequence[Mapping[str, Any]]) -> tuple[Json | None, str | None]:
    """The method in four parts and its paper: as the run recorded it, else of a method that is sharpen's own."""
    for start in reversed(starts):
        if isinstance(start.get("sentence"), Mapping):
            return dict(start["sentence"]), start.get("paper")
    # Only for a run of an earlier version. Imported here: it brings torch, which nothing else of a page needs.
    from sharpen.methods import METHODS

    if method not in METHODS:
        return None, None
    view = METHODS[method].unified_view
    return {
        "source": view.source,
        "reward": view.reward,
        "advantage": view.advantage,
        "loss": view.loss,
    }, view.paper


def _measures(rows: Rows, best_step: int | None, paired: Mapping[str, Estimate]) -> list[Json]:
    measured = [Measured(int(row["step"]), found) for row in rows if (found := held_out(row))]
    if not measured:
        return []
    before, now = measured[0], measured[-1]
    best = next((one for one in measured if one.step == best_step), None)
    result = []
    for name in dict.fromkeys([*before.measures, *now.measures]):
        info = describe(f"held_out/{name}")
        old, new = before.measures.get(name), now.measures.get(name)
        moved = before.step != now.step
        change = paired.get(name) if moved else None
        result.append(
            {
                "name": name,
                "title": info.title,
                "unit": info.unit,
                "share": info.share,
                "direction": info.direction,
                "before": _estimate(before.step, old),
                "now": _estimate(now.step, new) if moved else None,
                "best": None if best is None else _estimate(best.step, best.measures.get(name)),
                "change": None if change is None else _estimate(now.step, change),
                "verdict": _verdict(old, new, change, info.direction) if moved else None,
            }
        )
    return result


def _estimate(step: int, estimate: Estimate | None) -> Json | None:
    if estimate is None or finite(estimate.mean) is None:
        return None
    return {"step": step, "mean": estimate.mean, "low": finite(estimate.low), "high": finite(estimate.high)}


def _verdict(old: Estimate | None, new: Estimate | None, change: Estimate | None, direction: str) -> str | None:
    """Better or worse where the interval of the change excludes 0, or else where the two intervals do not overlap."""
    if old is None or new is None or direction == "none":
        return None
    if change is not None and finite(change.low) is not None:
        rises, falls = change.low > 0, change.high < 0
    elif finite(old.low) is None or finite(new.low) is None:
        return None
    else:
        rises, falls = new.low > old.high, new.high < old.low
    if not (rises or falls):
        return "unclear"
    return "better" if rises == (direction == "up") else "worse"


MAIN = ("pass@1", "pair_accuracy", "step_accuracy", "reward", "loss")
"""Measures that the headline tells of: the first that there is."""


def _short(model: str) -> str:
    """The name of a model without the folders that it is in: a hub id, the last part of a path, a run and its step."""
    parts = [part for part in model.split("/") if part]
    if len(parts) > 2 and parts[-2] == "checkpoints":
        return f"{parts[-3]}/{parts[-1]}"
    return "/".join(parts) if len(parts) <= 2 and not model.startswith("/") else parts[-1]


def _headline(method: str, model: str, measures: Sequence[Json], rows: Rows, step: int, steps: Any, status: str) -> str:
    begun = f"{method} on {_short(model) or 'a model'}, {step} of {steps} steps"
    if status == "running":
        begun += ", still running"
    main = next((m for name in MAIN for m in measures if m["name"] == name and m["now"] is not None), None)
    if main is not None:
        before, now = (_shown(main[when]["mean"], main["share"]) for when in ("before", "now"))
        said = {
            "better": "better than before",
            "worse": "worse than before",
            "unclear": "not clearly different from before",
        }
        verdict = f": {said[main['verdict']]}" if main["verdict"] else ""
        worse = [m["name"] for m in measures if m["verdict"] == "worse" and m is not main]
        but = f" Worse: {', '.join(worse)}." if worse else ""
        return f"{begun}. Held-out {main['name']} went from {before} to {now}{verdict}.{but}"
    key = "reward/mean" if any("reward/mean" in row for row in rows) else "loss"
    values = [row[key] for row in rows if key in row]
    if len(values) > 1:
        what = "Training reward" if key == "reward/mean" else "Training loss"
        return (
            f"{begun}. {what} went from {values[0]:.3g} to {values[-1]:.3g}; nothing was measured on held-out prompts."
        )
    return f"{begun}."


def _shown(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:.3g}"


def _drawn(rows: Rows) -> int | None:
    """Tokens drawn for training: of each step, the tokens per second times its seconds."""
    drawn = [
        row["tokens_per_s/rollout"] * row.get("time/rollout_s", 0.0) for row in rows if "tokens_per_s/rollout" in row
    ]
    return round(sum(drawn)) if drawn else None


def _computed(rows: Rows) -> int | None:
    """Tokens computed in forward and backward passes."""
    computed = [
        row["tokens_per_s/training"] * row.get("time/training_s", 0.0) for row in rows if "tokens_per_s/training" in row
    ]
    return round(sum(computed)) if computed else None


def _time(rows: Rows) -> list[Json]:
    totals = {part: sum(row.get(f"time/{part}_s", 0.0) for row in rows) for part in PARTS}
    return [{"part": part, "seconds": seconds} for part, seconds in totals.items() if seconds]


def _made_from(recipe: Mapping[str, Any], start: Mapping[str, Any]) -> list[list[str]]:
    reward = at(recipe, "reward")
    entries = {
        "model": named(at(recipe, "model")),
        "data": named(at(recipe, "data.train")) or named(at(recipe, "data.task")) or named(at(recipe, "data.sources")),
        "held-out data": named(at(recipe, "data.held_out")),
        "reward": named(reward),
        "seed": named(at(recipe, "seed")),
        **{key.replace("_", " "): named(start.get(key)) for key in ("device", "dtype", "threads")},
        **{str(package): str(version) for package, version in dict(start.get("versions") or {}).items()},
    }
    return [[label, text] for label, text in entries.items() if text]
