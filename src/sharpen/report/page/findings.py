"""The diagnosis of a run for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sharpen.errors import DataError
from sharpen.report.diagnosis.diagnose import diagnose
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.finding import Finding, gravest_first
from sharpen.report.diagnosis.history import History
from sharpen.report.diagnosis.on_disk import recent_samples
from sharpen.runs.folder import RunFolder


def findings(folder: RunFolder, rows: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """What is wrong with a run as it stands, the gravest first; ``rows`` are those of its metrics.

    Samples that are damaged are a finding too. Raises DataError for a recipe that is no mapping of YAML.
    """
    samples, damaged = recent_samples(folder)
    found = diagnose(History(Facts(_recipe(folder)), rows, samples))
    last = int(rows[-1]["step"]) if rows else 0
    if damaged:
        found.append(_damaged(damaged, last))
    return [finding.as_json() for finding in gravest_first(found)]


def _recipe(folder: RunFolder) -> Mapping[str, Any]:
    try:
        tree = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{folder.recipe}: {error}") from error
    if not isinstance(tree, Mapping):
        raise DataError(f"{folder.recipe}: no settings in it")
    return tree


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
