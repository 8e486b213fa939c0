"""What sharpen promises to survive, tried on this machine: ``python tests/batteries [PART …] [--short]``.

Exits with 1 and says what went wrong, if anything did. The whole takes two hours or more on one processor, the short
form some minutes. ``--table FILE`` writes what was found as a table, as in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

TREE = Path(__file__).parents[2]
sys.path[:0] = [str(TREE / "tests"), str(TREE / "src")]

import torch  # noqa: E402

from batteries.damage import damage  # noqa: E402
from batteries.disks import failing_disks, small_disks  # noqa: E402
from batteries.inputs import inputs  # noqa: E402
from batteries.kills import kills  # noqa: E402
from batteries.part import Outcome, Part  # noqa: E402
from batteries.processes import processes  # noqa: E402
from batteries.random_kills import random_kills, signals  # noqa: E402
from batteries.sandboxes import sandboxes  # noqa: E402
from batteries.suites import changes, completions  # noqa: E402

PARTS = {
    part.name: part
    for part in (
        Part("kills", "SIGKILL before every file operation", kills),
        Part("random-kills", "SIGKILL at random moments, up to three times a run", random_kills),
        Part("signals", "SIGINT, SIGTERM and SIGHUP at random moments", signals),
        Part("failing-disks", "EIO at a file operation; a disk full or read-only from there on", failing_disks),
        Part("small-disks", "a real disk that is too small, then read-only, then large enough", small_disks),
        Part("processes", "several processes on one run", processes),
        Part("damage", "bits flipped, files cut, removed, replaced and added in checkpoints", damage),
        Part("changes", "data, code, models and settings changed between stop and resume", changes),
        Part("inputs", "bad recipes, data, models, rewards, folders and disks", inputs),
        Part("completions", "texts that try to stop a reward or to reach the terminal", completions),
        Part("sandbox", "hostile programs and forged solutions at four levels", sandboxes),
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)}; default: all")
    parser.add_argument("--short", action="store_true", help="the short form of each part")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write what was found as a table in Markdown")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    found: list[tuple[Part, Outcome, float]] = []
    for part in [PARTS[name] for name in arguments.parts or PARTS]:
        print(f"{part.name}: {part.what}", flush=True)
        started = time.monotonic()
        try:
            outcome = part.run(arguments.short)
        except Exception as error:  # noqa: BLE001 - the other parts are tried all the same
            outcome = Outcome(1)
            outcome.failed(f"{part.name}: {error!r}")
        found.append((part, outcome, time.monotonic() - started))
    table = _table(found)
    print(f"\n{table}")
    if arguments.table is not None:
        arguments.table.write_text(table, encoding="utf-8")
    return 1 if any(outcome.wrong for _, outcome, _ in found) else 0


def _table(found: Sequence[tuple[Part, Outcome, float]]) -> str:
    lines = ["| part | what | tried | wrong | minutes |", "|---|---|---|---|---|"]
    for part, outcome, took_s in found:
        lines.append(f"| `{part.name}` | {part.what} | {outcome.cases:,} | {len(outcome.wrong)} | {took_s / 60:.1f} |")
    lines += ["", f"{date.today()}, {platform.system()} {platform.release()}, torch {torch.__version__}"]
    lines += [f"- not tried: {reason}" for _, outcome, _ in found for reason in outcome.skipped]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
