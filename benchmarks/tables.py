"""The tables of a result, as Markdown that also reads well on a terminal. Standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

MIB = 2**20
OURS = "sharpen"


def markdown(result: dict[str, Any]) -> str:
    """What was measured where, and a table for each kind of match."""
    parts = [_heading(result)]
    for kind, rows_of, head in (("step", _step_rows, STEP_HEAD), ("rollout", _rollout_rows, ROLLOUT_HEAD)):
        matches = [match for match in result["matches"] if match["kind"] == kind]
        if matches:
            parts += [_table(head, [row for match in matches for row in rows_of(match)]), _conditions(matches)]
    return "\n\n".join(parts) + "\n"


STEP_HEAD = (
    "case",
    "",
    "step, s",
    "against sharpen",
    "rollout, s",
    "reward, ms",
    "training, s",
    "tokens/s",
    "peak memory above the model, MiB",
    "peak memory, MiB",
    "of the floor: rollout",
    "training",
    "step",
)
ROLLOUT_HEAD = ("case", "", "seconds", "tokens/s", "against sharpen", "of the floor")


def _step_rows(match: dict[str, Any]) -> Iterable[Sequence[str]]:
    for one in match["contestants"]:
        of = _medians(one["turns"])
        floor = match["floor"]
        yield (
            match["case"],
            one["name"],
            _number(of["seconds"]),
            _against(match, one),
            _number(of["rollout_s"]),
            _number(1000 * of["reward_s"]),
            _number(of["training_s"]),
            f"{match['tokens'] / of['seconds']:.0f}",
            f"{of['above_bytes'] / MIB:.0f}",
            f"{of['peak_bytes'] / MIB:.0f}",
            *(_share(floor[name] / of[name]) for name in ("rollout_s", "training_s", "seconds")),
        )


def _rollout_rows(match: dict[str, Any]) -> Iterable[Sequence[str]]:
    for one in match["contestants"]:
        seconds = _medians(one["turns"])["seconds"]
        share = _share(match["floor"]["rollout_s"] / seconds)
        speed = f"{match['tokens'] / seconds:.0f}"
        yield (match["case"], one["name"], _number(seconds), speed, _against(match, one), share)


def _against(match: dict[str, Any], one: dict[str, Any]) -> str:
    """How many times as long as sharpen's turn just before: the median, and the least and the most."""
    ours = next((c for c in match["contestants"] if c["name"] == OURS), None)
    if ours is None or ours is one:
        return "1" if ours is one else ""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours["turns"], one["turns"], strict=True)]
    return f"{statistics.median(ratios):.2f} × [{min(ratios):.2f}, {max(ratios):.2f}]"


def _heading(result: dict[str, Any]) -> str:
    machine = result["machine"]
    told = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_GiB']} GiB; sharpen at {result['commit']}."
    return "  \n".join([told, *(_rates(match) for match in result["matches"])])


def _rates(match: dict[str, Any]) -> str:
    rates, products = match["rates"], match["products"]
    return (
        f"{match['case']}: {rates['operations'] / 1e9:.0f} GFLOP/s in {match['dtype']} ({_fastest(products)}), "
        f"memory {rates['memory'] / 1e9:.1f} GB/s, cache {rates['cache'] / 1e9:.1f} GB/s."
    )


def _fastest(products: dict[str, float]) -> str:
    return max(products, key=lambda name: products[name])


def _conditions(matches: Sequence[dict[str, Any]]) -> str:
    """With what settings, how often, and how quiet the machine was."""
    turns = [turn for match in matches for one in match["contestants"] for turn in one["turns"]]
    shares = [turn["others_s"] / (2 * turn["seconds"]) for turn in turns]
    counts = sorted({len(one["turns"]) for match in matches for one in match["contestants"]})
    versions = {
        f"{package} {version}"
        for match in matches
        for one in match["contestants"]
        for package, version in one["versions"].items()
        if package != OURS
    }
    lines = [
        f"Medians of {' or '.join(map(str, counts))} turns each; in brackets the least and the most.",
        f"Others had at most {100 * max(shares):.0f} % of the processors during a turn, "
        f"{100 * statistics.median(shares):.1f} % in the median.",
        f"{', '.join(sorted(versions))}.",
    ]
    for match in matches:
        for one in match["contestants"]:
            settings = ", ".join(f"{name} {value}" for name, value in one["settings"].items())
            lines.append(f"{match['case']}, {one['name']}: {settings}.")
    return "  \n".join(lines)


def _medians(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def _number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}" if value >= 1 else f"{value:.3f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
