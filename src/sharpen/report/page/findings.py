"""The diagnosis of a run for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.report.diagnosis.diagnose import diagnose
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.finding import Finding, gravest_first
from sharpen.report.diagnosis.history import History
from sharpen.report.diagnosis.on_disk import recent_samples
from sharpen.report.page.recipe_text import read_recipe
from sharpen.runs.folder import RunFolder


def findings(
    folder: RunFolder,
    rows: Sequence[Mapping[str, float]],
    *,
    recipe: Mapping[str, Any] | None = None,
    in_metrics: Sequence[str] = (),
    in_samples: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """What is wrong with a run as it stands, the gravest first; ``rows`` are those of its metrics.

    ``recipe`` is read from the folder unless it is given.

    Damaged files are findings too: samples, also those that ``in_samples`` names in sentences, and the metrics that
    ``in_metrics`` does. Raises DataError for a recipe that cannot be read.
    """
    samples, damaged = recent_samples(folder)
    found = diagnose(History(Facts(read_recipe(folder.recipe) if recipe is None else recipe), rows, samples))
    last = int(rows[-1]["step"]) if rows else 0
    if damaged := list(dict.fromkeys((*in_samples, *damaged))):
        found.append(_damaged(damaged, last))
    if in_metrics:
        found.append(_damaged_metrics(in_metrics, last))
    return [finding.as_json() for finding in gravest_first(found)]


def _damaged(problems: Sequence[str], last: int) -> Finding:
    return Finding(
        "samples_damaged",
        "warning",
        "Samples cannot be read",
        f"{'; '.join(problems)}.",
        "The diagnosis does without them. The metrics and the checkpoints do not depend on samples.",
        (last, last),
        (),
        "samples",
    )


def _damaged_metrics(problems: Sequence[str], last: int) -> Finding:
    return Finding(
        "metrics_damaged",
        "warning",
        "Metrics are missing",
        f"{'; '.join(problems)}.",
        "The page and the diagnosis do without them.",
        (last, last),
        (),
        "metrics",
    )
