"""One plot per run: training curves, and the measures before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sharpen.evaluation.estimators import Estimate
from sharpen.report.series import Series, Track, series, smooth
from sharpen.runs.metric_catalogue import describe, describe_measure
from sharpen.system.files import named_write_errors, replacing
from sharpen.system.printable import printable

# Okabe and Ito's palette, safe for colour-blind readers.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#8C8C8C"

_WIDTH_IN, _DPI = 10.0, 160


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: its name and the rows of its ``metrics.jsonl``; ``step`` counts within the stage."""

    name: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Small:
    """A small panel: one metric over the stages that log it."""

    key: str
    color: str

    @property
    def title(self) -> str:
        info = describe(self.key)
        return info.title if info.share or not info.unit else f"{info.title} ({info.unit})"


_SMALL = (_Small("length/mean", PURPLE), _Small("truncated", PURPLE), _Small("entropy", GREEN), _Small("kl", ORANGE))


class RunFigure(Figure):
    """A figure that a notebook shows as a picture, also where no plotting backend is set up."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def plot_run(
    stages: Sequence[Stage],
    path: Path | str,
    before: Mapping[str, Estimate] | None = None,
    after: Mapping[str, Estimate] | None = None,
    title: str | None = None,
) -> Path:
    """Write `run_figure` to the PNG file ``path``. Raises ValueError if there is nothing to plot."""
    figure = run_figure(stages, before, after, title)
    path = Path(path)
    with named_write_errors(path, "the plot"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            figure.savefig(partial, format="png")
    return path


def run_figure(
    stages: Sequence[Stage],
    before: Mapping[str, Estimate] | None = None,
    after: Mapping[str, Estimate] | None = None,
    title: str | None = None,
) -> RunFigure:
    """The picture of a run, 1600 pixels wide.

    Top row: training reward (``reward/mean``) and held-out pass@1 (``held_out/pass@1``, with a band from
    ``held_out/pass@1_low`` to ``_high``) over the stages, each of equal width; beside it, the measures in both
    ``before`` and ``after`` that are shares (0 to 1), with intervals. Bottom row: loss for stages without a reward
    (with one it says little), completion length, share truncated, entropy and KL. Metrics that no row has are
    left out.

    Raises ValueError if there is nothing to plot.
    """
    measures = _shares(before or {}, after or {})
    main = _has(stages, "reward/mean") or _has(stages, "held_out/pass@1")
    supervised = [stage for stage in stages if not _has([stage], "reward/mean")]
    small = [(panel, stages) for panel in _SMALL if _worth_drawing(stages, panel)]
    if _has(supervised, "loss"):
        small.insert(0, (_Small("loss", BLUE), supervised))
    if not (main or measures or small):
        raise ValueError("the metrics hold nothing that could be drawn")

    top, bottom = bool(main or measures), bool(small)
    heights = [3.6] * top + [2.2 if top else 3.2] * bottom
    figure = RunFigure(figsize=(_WIDTH_IN, sum(heights) + (0.4 if title else 0)), dpi=_DPI, facecolor="white")
    if title:
        figure.suptitle(printable(title), parse_math=False, fontsize=13, fontweight="bold", x=0.01, ha="left")
    figure.set_layout_engine("constrained", h_pad=0.07, w_pad=0.07)
    rows = figure.subfigures(top + bottom, 1, height_ratios=heights, squeeze=False)[:, 0]
    if main and measures:
        axes = rows[0].subplots(1, 2, width_ratios=[1.75, 1])
        _draw_progress(axes[0], stages)
        _draw_before_after(axes[1], before or {}, after or {}, measures)
    elif main:
        _draw_progress(rows[0].subplots(), stages)
    elif measures:
        _draw_before_after(rows[0].subplots(), before or {}, after or {}, measures)
    if small:
        for axis, (panel, of) in zip(rows[-1].subplots(1, len(small), squeeze=False)[0], small, strict=True):
            _draw_small(axis, panel, of)
    return figure


def _shares(before: Mapping[str, Estimate], after: Mapping[str, Estimate]) -> list[str]:
    # Lengths, losses and rewards above 1 do not fit a percentage axis; a reward from 0 to 1 does.
    both = [measure for measure in before if measure in after and _may_be_share(measure)]
    return [m for m in both if 0 <= before[m].mean <= 1 and 0 <= after[m].mean <= 1]


def _may_be_share(measure: str) -> bool:
    info = describe_measure(measure)
    return info.share or info.unit in ("reward", "")


def _has(stages: Sequence[Stage], key: str) -> bool:
    return any(series(stage.rows, key) for stage in stages)


def _worth_drawing(stages: Sequence[Stage], panel: _Small) -> bool:
    found = [line for stage in stages if (line := series(stage.rows, panel.key))]
    return bool(found) and not (panel.key == "truncated" and all(not line.values.any() for line in found))


def _draw_progress(axis: Axes, stages: Sequence[Stage]) -> None:
    track = Track([(s.name, s.rows) for s in stages if _has([s], "reward/mean") or _has([s], "held_out/pass@1")])
    rewards = [line for _, rows in track.stages if (line := series(rows, "reward/mean"))]
    shares = all(line.values.min() >= 0 and line.values.max() <= 1 for line in rewards)
    for index, (_, rows) in enumerate(track.stages):
        if reward := series(rows, "reward/mean"):
            x = track.x(index, reward.steps)
            axis.plot(x, reward.values, color=ORANGE, alpha=0.3, linewidth=0.8)
            axis.plot(x, smooth(reward.values), color=ORANGE, linewidth=1.6, label="training reward")
        if held_out := series(rows, "held_out/pass@1"):
            _draw_held_out(axis, track, index, rows, held_out)
    _finish_track(axis, track)
    if shares:
        axis.set_ylim(-0.02, 1.02)
        axis.yaxis.set_major_formatter(_percent())
    _style(axis, "Right answers while training" if shares else "Reward and held-out measure while training")
    by_label = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(by_label.values(), by_label.keys(), fontsize=9, frameon=False, loc="lower right")


def _draw_held_out(axis: Axes, track: Track, index: int, rows: Any, held_out: Series) -> None:
    x = track.x(index, held_out.steps)
    low, high = series(rows, "held_out/pass@1_low"), series(rows, "held_out/pass@1_high")
    if low and high and np.array_equal(low.steps, high.steps):
        axis.fill_between(track.x(index, low.steps), low.values, high.values, color=BLUE, alpha=0.18, linewidth=0)
    label = "held-out pass@1, 95 % interval" if low and high else "held-out pass@1"
    axis.plot(x, held_out.values, color=BLUE, linewidth=2, marker="o", markersize=4, label=label)


def _draw_before_after(
    axis: Axes, before: Mapping[str, Estimate], after: Mapping[str, Estimate], measures: Sequence[str]
) -> None:
    bar_width = 0.38
    for side, (label, of, color) in enumerate((("before", before, GREY), ("after", after, BLUE))):
        x = np.arange(len(measures)) + (side - 0.5) * bar_width
        means = np.array([of[m].mean for m in measures])
        ends = np.array([[of[m].low, of[m].high] for m in measures]).T
        spread = np.nan_to_num(np.abs(ends - means))
        axis.bar(x, means, bar_width * 0.94, color=color, label=label)
        axis.errorbar(x, means, yerr=spread, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
        for position, mean, above in zip(x, means, spread[1], strict=True):
            axis.annotate(
                f"{100 * mean:.0f}",
                (position, mean + above),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color="#222222",
            )
    axis.set_xticks(range(len(measures)), [fill(printable(measure), 9) for measure in measures], parse_math=False)
    axis.set_ylim(0, 1.16)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(_percent())
    _style(axis, "Before and after")
    axis.legend(fontsize=9, frameon=False, loc="upper left", ncols=2, borderaxespad=0.1)


def _draw_small(axis: Axes, panel: _Small, stages: Sequence[Stage]) -> None:
    track = Track([(stage.name, stage.rows) for stage in stages if _has([stage], panel.key)])
    for index, (_, rows) in enumerate(track.stages):
        if line := series(rows, panel.key):
            x = track.x(index, line.steps)
            axis.plot(x, line.values, color=panel.color, alpha=0.3, linewidth=0.8)
            axis.plot(x, smooth(line.values), color=panel.color, linewidth=1.6)
    _finish_track(axis, track, small=True)
    if describe(panel.key).share:
        axis.yaxis.set_major_formatter(_percent())
    elif axis.get_ylim()[0] > 0 and math.isfinite(axis.get_ylim()[1]):
        axis.set_ylim(bottom=0)
    _style(axis, panel.title, small=True)


def _finish_track(axis: Axes, track: Track, small: bool = False) -> None:
    positions, labels = track.ticks((4 if len(track.stages) == 1 else 2) if small else 5)
    axis.set_xticks(positions, labels)
    axis.set_xlim(-0.02 * len(track.stages), len(track.stages) * 1.02)
    for edge in range(1, len(track.stages)):
        axis.axvline(edge, color="#BBBBBB", linewidth=1, linestyle=(0, (4, 3)))
    middles = [index + 0.5 for index in range(len(track.stages))]
    # A step tick may fall on the middle of a stage; by default matplotlib would then drop the stage name there.
    axis.xaxis.remove_overlapping_locs = False
    axis.set_xticks(middles, [printable(f"{name} steps") for name, _ in track.stages], minor=True, parse_math=False)
    axis.tick_params(axis="x", which="minor", length=0, pad=17 if small else 20)


def _style(axis: Axes, title: str, small: bool = False) -> None:
    axis.set_title(title, fontsize=10 if small else 11.5, fontweight="bold", loc="left")
    axis.tick_params(which="both", labelsize=8.5 if small else 9.5, color="#BBBBBB", labelcolor="#444444")
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#BBBBBB")


def _percent() -> PercentFormatter:
    return PercentFormatter(1.0, symbol=" %")
