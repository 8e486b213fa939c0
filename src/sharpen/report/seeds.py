"""What several runs of one recipe, which differ by their seed, say together: means over seeds and their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from sharpen.evaluation.student_t import mean_interval
from sharpen.report.series import HELD_OUT, held_out
from sharpen.report.table import plain_measures
from sharpen.system.printable import printable

Rows = Sequence[Mapping[str, float]]

INTERVAL = "95 % interval of the mean over seeds, Student's t"
FINAL = ("reward/mean", "loss")
"""Training metrics whose last value is reported: the first that all runs have."""


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """The values of one measure, one for each seed: before the first step, if it was measured then, and at the end."""

    after: tuple[float, ...]
    before: tuple[float, ...] | None = None

    @property
    def change(self) -> tuple[float, ...] | None:
        """After − before of each seed: the interval of their mean is of paired differences."""
        return self.before and tuple(new - old for old, new in zip(self.before, self.after, strict=True))

    def to_json(self) -> dict[str, Any]:
        parts = {"before": self.before, "after": self.after, "change": self.change}
        return {part: _to_json(values) for part, values in parts.items() if values is not None}


def over_seeds(runs: Sequence[Rows]) -> dict[str, OverSeeds]:
    """Each held-out measure, and the final training reward or loss, from the rows of every run's ``metrics.jsonl``.

    Only what all runs have measured.
    """
    found: dict[str, OverSeeds] = {}
    measured = [[(row, held_out(row)) for row in rows if held_out(row)] for rows in runs]
    if all(measured):
        first, last = ([m[i][1] for m in measured] for i in (0, -1))
        trained = all(len(m) > 1 for m in measured)
        for name in _common(last):
            before = tuple(m[name].mean for m in first) if trained and all(name in m for m in first) else None
            found[f"{HELD_OUT}{name}"] = OverSeeds(tuple(m[name].mean for m in last), before)
    for name in FINAL:
        values = [[row[name] for row in rows if name in row] for rows in runs]
        if all(values):
            return {**found, name: OverSeeds(tuple(v[-1] for v in values))}
    return found


def mean_rows(runs: Sequence[Rows]) -> list[dict[str, float]]:
    """The mean over seeds of every metric, at every step that all runs have; held-out measures with the interval."""
    by_step = [{row["step"]: row for row in rows} for rows in runs]
    return [_mean_row([rows[step] for rows in by_step]) for step in _common(by_step)]


def means_table(measures: Mapping[str, OverSeeds], seeds: Sequence[int]) -> Table:
    """One row per measure: mean ± half the interval, before, after and of the change."""
    table = _table(f"Mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}", ("before", "after", "change"))
    for name, values in measures.items():
        label, percent = _label(name)
        table.add_row(
            Text(label),
            _mean(values.before, percent),
            _mean(values.after, percent),
            _mean(values.change, percent, sign="+"),
        )
    if len(seeds) > 1:
        table.caption = f"± {INTERVAL} with {len(seeds) - 1} degree{'s' * (len(seeds) > 2)} of freedom"
    else:
        table.caption = "one seed: no interval"
    table.caption_justify = "left"
    return table


def values_table(measures: Mapping[str, OverSeeds], seeds: Sequence[int]) -> Table:
    """One row per measure: its value at the end, a column for each seed."""
    table = _table("Each seed at the end", [f"seed {seed}" for seed in seeds])
    for name, values in measures.items():
        label, percent = _label(name)
        table.add_row(Text(label), *(_number(value, percent) for value in values.after))
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    table.add_column("measure", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _label(name: str) -> tuple[str, bool]:
    """The measure as shown, and whether it is in percent."""
    if not name.startswith(HELD_OUT):
        return f"training {name.partition('/')[0]}", False
    measure = name.removeprefix(HELD_OUT)
    percent = not plain_measures([measure])
    return printable(f"{measure} (%)" if percent else measure), percent


def _mean(values: tuple[float, ...] | None, percent: bool, sign: str = "") -> str:
    if values is None:
        return "–"
    estimate = mean_interval(values)
    text = _number(estimate.mean, percent, sign)
    return text if math.isnan(estimate.high) else f"{text} ± {_number(estimate.high - estimate.mean, percent)}"


def _number(value: float, percent: bool, sign: str = "") -> str:
    if math.isnan(value):
        return "–"
    scaled = 100 * value if percent else value
    # As in `format_estimate`: one decimal is too coarse for a reward between 0 and 1.
    return f"{scaled:{sign}.{1 if percent or abs(scaled) >= 10 else 3}f}"


def _to_json(values: tuple[float, ...]) -> dict[str, Any]:
    # Infinity and NaN are no JSON.
    estimate = {key: v if math.isfinite(v) else None for key, v in asdict(mean_interval(values)).items()}
    return {**estimate, "values": [v if math.isfinite(v) else None for v in values]}


def _common(mappings: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """The keys that all have, in the order of the first."""
    return [key for key in mappings[0] if all(key in other for other in mappings[1:])]


def _mean_row(rows: Rows) -> dict[str, float]:
    means = {key: mean_interval([row[key] for row in rows]).mean for key in _common(rows)}
    for name in held_out(means):
        estimate = mean_interval([row[f"{HELD_OUT}{name}"] for row in rows])
        means[f"{HELD_OUT}{name}_low"], means[f"{HELD_OUT}{name}_high"] = estimate.low, estimate.high
    return means
