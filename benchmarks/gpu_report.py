"""What a run on a GPU has found, as tables."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from floor import Rates
from gpu_checks import Check
from gpu_measures import Decoded, Trained
from gpu_steps import Stepped

GIB = 2**30
T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """``stepped`` has one list for each pair of contestants, sharpen first; ``failures`` are of contestants."""

    machine: str
    rates: Rates
    checks: list[Check] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)
    stepped: list[list[Stepped]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return all(check.passed for check in self.checks) and not self.failures

    def say(self, text: str) -> None:
        print(text, end="\n\n", flush=True)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.say(text)

    def attempt(self, what: str, results: list[T], work: Callable[[], T]) -> None:
        """Add a result; where it breaks down on this device, go on: the rest is worth knowing all the same.

        Compilers of kernels raise errors of their own.
        """
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            first = (str(error).splitlines() or ["no message"])[0]
            self.failures.append(f"{what}: {type(error).__name__}: {first}")
            self.say(f"Broke down: {self.failures[-1]}")

    def head(self) -> str:
        return (
            f"{self.machine}: {self.rates.operations / 1e12:.2f} · 10¹² operations/s in bfloat16, "
            f"{self.rates.memory / 1e9:.0f} · 10⁹ bytes/s"
        )

    def checks_table(self) -> str:
        rows = [(check.name, check.result, "passed" if check.passed else "FAILED") for check in self.checks]
        return _table(("check, float32", "result", ""), rows)

    def decoded_table(self) -> str:
        rows = [
            (
                d.model,
                f"{d.prompts} × {d.group}",
                "yes" if d.capture else "no",
                f"{d.seconds:.3f}",
                f"{d.tokens_per_s:.0f}",
                f"{d.share_of_floor:.0%}",
                _gib(d.peak_bytes),
            )
            for d in self.decoded
        ]
        return _table(("decoding", "rows", "CUDA graph", "s", "tokens/s", "floor reached", "peak GiB"), rows)

    def trained_table(self) -> str:
        rows = [
            (
                t.model,
                str(t.prompt),
                str(t.tokens),
                f"{t.seconds:.3f}",
                f"{t.operations / 1e12:.2f}",
                f"{t.share_of_rate:.0%}",
                _gib(t.peak_bytes),
            )
            for t in self.trained
        ]
        return _table(
            ("training pass", "prompt", "tokens", "s", "10¹² operations", "of the matrix rate", "peak GiB"), rows
        )

    def stepped_table(self) -> str:
        rows = []
        for pair in self.stepped:
            ours = next((s.seconds for s in pair if s.contestant == "sharpen"), None)
            for s in pair:
                parts = (f"{x:.3f}" for x in (s.seconds, s.rollout_s, s.training_s))
                ratio = "–" if ours is None else f"{s.seconds / ours:.2f}"
                rows.append((s.model, s.contestant, *parts, f"{s.tokens_per_s:.0f}", ratio, _gib(s.peak_bytes)))
        heads = ("GRPO step", "", "s", "rollout s", "training s", "tokens/s", "× sharpen's time", "peak GiB")
        return _table(heads, rows)

    def markdown(self) -> str:
        tables = [self.head(), self.checks_table(), self.decoded_table(), self.trained_table(), self.stepped_table()]
        # Of a failure the last line says what it is.
        return "\n\n".join([*tables, *self.notes, *(f"Broke down: {f.splitlines()[-1]}" for f in self.failures)]) + "\n"


def _gib(size: int | None) -> str:
    return "–" if size is None else f"{size / GIB:.2f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
