"""How long the trainer takes for a value that a program returned: to decode it, and to compare it with an equal one.

python benchmarks/decoding.py
python benchmarks/decoding.py --bytes 4194304

The kinds of values are those that the tests try, the costliest first; with how many times as long a value takes as one
of a quarter of its bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from costly_values import LISTS, REFUSED, TABLES
from sharpen.rewards.code.comparison import same_value
from sharpen.sandbox import NotPlain
from sharpen.sandbox.inside.plain import decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of the encoded value")
    parser.add_argument("--attempts", type=int, default=3, help="the least time of these counts")
    given = parser.parse_args()
    lines = []
    for name, make in {**LISTS, **TABLES, **{f"refused: {name}": make for name, make in REFUSED.items()}}.items():
        whole, quarter = (times_s(make(size), given.attempts) for size in (given.bytes, given.bytes // 4))
        lines.append((sum(whole), name, whole, sum(whole) / max(sum(quarter), 1e-9)))
    print(f"{given.bytes:,} bytes{'':34}decode   compare   × a quarter's")
    for _, name, (decoding, comparing), growth in sorted(lines, reverse=True):
        print(f"  {name:40} {decoding * 1e3:6.0f} ms {comparing * 1e3:6.0f} ms {growth:8.1f}")


def times_s(data: bytes, attempts: int) -> tuple[float, float]:
    """The thread's processor time of decoding and of comparing; the latter 0 for what is refused."""

    def least(act: Callable[[], Any]) -> float:
        taken = []
        for _ in range(attempts):
            started = time.thread_time()
            act()
            taken.append(time.thread_time() - started)
        return min(taken)

    def tried() -> Any:
        try:
            return decode(data)
        except NotPlain:
            return None

    found, expected = tried(), tried()
    return least(tried), 0.0 if found is None else least(lambda: same_value(found, expected))


if __name__ == "__main__":
    main()
