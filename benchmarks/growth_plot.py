"""The growth curves as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.ticker import LogLocator
from worker import MIB

if TYPE_CHECKING:
    from growth import Measured

matplotlib.use("Agg")

PHASES = (("rollout", "tab:blue"), ("training", "tab:orange"))
CAPTION = (
    "Solid: measured seconds (median). Dashed: the operations of a point at the first point's seconds per operation.\n"
    "Dotted, right axis: peak memory of the optimizer step above the loaded model."
)


def draw(measured: Mapping[str, Sequence[Measured]], path: Path) -> None:
    """Four panels: seconds and memory against what grows. A curve that holds a 0 has no place on these axes."""
    from matplotlib import pyplot

    curves = {name: points for name, points in measured.items() if all(point.value > 0 for point in points)}
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for panel, (name, points) in zip(axes.flat, curves.items(), strict=False):
        _panel(panel, name, points)
    for empty in list(axes.flat)[len(curves) :]:
        empty.set_axis_off()
    figure.supxlabel(CAPTION, fontsize=9)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _panel(panel: Any, name: str, points: Sequence[Measured]) -> None:
    what, _, unit = name.partition(", ")
    values = [point.value for point in points]
    for phase, (label, colour) in enumerate(PHASES):
        first = points[0]
        cost = first.seconds[phase] / first.operations[phase]
        panel.plot(values, [p.seconds[phase] for p in points], "o-", color=colour, label=label)
        panel.plot(values, [cost * p.operations[phase] for p in points], "--", color=colour, linewidth=1)
    panel.set(xscale="log", yscale="log", xlabel=f"{what} [{unit}]", ylabel="time [s]", title=f"Growth of the {what}")
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.legend(loc="upper left")
    memory = panel.twinx()
    memory.plot(values, [p.training_bytes / MIB for p in points], ":", color="tab:gray")
    memory.set(ylabel="memory [MiB]", ylim=(0, None))
