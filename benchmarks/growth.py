"""How the cost of a GRPO step grows with the prompt, the completion, the group and the vocabulary.

    python benchmarks/growth.py [--curve CURVE ...] [--repetitions 3] [--plot FILE.png]

A tiny Llama (hidden 128, 4 layers) in float32 on 2 CPU cores; every point in a process of its own, the median of some
repetitions after a warm-up. For each point: the seconds of a rollout (`generate`) and of an optimizer step (forward,
backward, clipping, AdamW), the operations that each needs at least (`floor.py`), the seconds that 10⁹ of them take
compared with the curve's first point, and the peak memory above the loaded model, of the optimizer step alone and with
a rollout. A relative cost of 1 or below says that a step costs what its tokens cost. A micro-batch holds 4096 tokens,
so memory may grow until a step is that long. The last column is the processor time that others had meanwhile: where it
is not small, measure again. Takes some minutes; prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cases import Case
from contestants import Contestant, Running
from floor import FLOAT32_BYTES, Shape, Work, rollout, training
from worker import MIB

from models import ROOT, make_tiny

CONTEXT = 4096
TOKENS_PER_MICROBATCH = 4096
BASE = Case("tiny", prompt=64, limit=32, prompts=4, group=16, spread=False)
VOCABULARY = 512


@dataclass(frozen=True, slots=True)
class Point:
    """A step: ``flat`` of its groups have rewards that are all equal."""

    value: float
    case: Case = BASE
    vocabulary: int = VOCABULARY
    flat: int = 0

    def operations(self, shape: Shape) -> tuple[float, float]:
        """Of the rollout and of the optimizer step, at least."""
        taught = replace(self.case, prompts=self.case.prompts - self.flat)
        trained = training(shape, taught, taught.lengths(), FLOAT32_BYTES) if taught.prompts else []
        return _sum(rollout(shape, self.case, self.case.lengths(), FLOAT32_BYTES)), _sum(trained)


@dataclass(frozen=True, slots=True)
class Measured:
    """A point's seconds and operations, of rollout and of optimizer step, and bytes above the loaded model.

    ``others_s`` is the processor time that others had meanwhile.
    """

    value: float
    seconds: tuple[float, float]
    operations: tuple[float, float]
    training_bytes: int
    whole_bytes: int
    others_s: float


CURVES: dict[str, list[Point]] = {
    "prompt, tokens": [Point(n, replace(BASE, prompt=n)) for n in (64, 128, 256, 512, 1024, 2048)],
    "completion, tokens": [Point(n, replace(BASE, limit=n)) for n in (32, 64, 128, 256, 512)],
    "group, completions": [Point(n, replace(BASE, group=n)) for n in (4, 8, 16, 32, 64, 128, 256)],
    "vocabulary, tokens": [Point(n, vocabulary=n) for n in (512, 2048, 8192, 32768, 65536)],
    "share of groups without spread": [Point(flat / BASE.prompts, flat=flat) for flat in (0, 2, 4)],
}


def measure(point: Point, repetitions: int, log: Path) -> Measured:
    place = ROOT / f"runs/bench/models/growth-{point.vocabulary}"
    if not (place / "config.json").is_file():
        make_tiny(place, vocabulary=point.vocabulary, context=CONTEXT)
    settings = {
        "case": asdict(point.case),
        "model": str(place),
        "flat": point.flat,
        "tokens_per_microbatch": TOKENS_PER_MICROBATCH,
        "repetitions": repetitions,
    }
    running = Running(Contestant("sharpen", "growth_worker.py", ".venv", settings), {}, log)
    try:
        trained, drawn = running.step(), running.step()
    finally:
        running.end()
    return Measured(
        point.value,
        (drawn["median_s"], trained["median_s"]),
        point.operations(Shape.of(place)),
        trained["above_bytes"],
        max(trained["above_bytes"], drawn["above_bytes"]),
        trained["others_s"] + drawn["others_s"],
    )


def table(name: str, points: list[Measured]) -> str:
    """A curve in Markdown."""
    lines = [
        f"| {name} | rollout s | 10⁹ operations | relative | training s | 10⁹ operations | relative "
        "| training MiB | with rollout MiB | others' CPU s |",
        "|" + "---|" * 10,
    ]
    for point in points:
        cells = [f"{point.value:g}"]
        for phase in (0, 1):
            cells += [f"{point.seconds[phase]:.3f}", f"{point.operations[phase] / 1e9:.2f}"]
            cells.append(_relative(points[0], point, phase))
        cells += [f"{point.training_bytes / MIB:.0f}", f"{point.whole_bytes / MIB:.0f}", f"{point.others_s:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _relative(first: Measured, point: Measured, phase: int) -> str:
    """Seconds for an operation, compared with the first point's."""
    if not point.operations[phase]:
        return "–"
    cost, first_cost = (p.seconds[phase] / p.operations[phase] for p in (point, first))
    return f"{cost / first_cost:.2f}"


def _sum(phases: Iterable[Work]) -> float:
    return sum(work.operations for work in phases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curve", action="append", choices=[name.split()[0].strip(",") for name in CURVES])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    chosen = tuple(arguments.curve or ("",))
    wanted = {name: points for name, points in CURVES.items() if name.startswith(chosen)}
    measured: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, points in wanted.items():
            measured[name] = [measure(point, arguments.repetitions, Path(folder) / "log") for point in points]
            print(table(name, measured[name]), end="\n\n", flush=True)
    if arguments.plot is not None:
        from growth_plot import draw

        draw(measured, arguments.plot)


if __name__ == "__main__":
    main()
