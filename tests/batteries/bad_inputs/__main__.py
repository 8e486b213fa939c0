"""Whether each bad input gets its message.

python tests/batteries/bad_inputs                    all: some minutes
python tests/batteries/bad_inputs "recipe: a tag"    those whose names contain a text
python tests/batteries/bad_inputs --show             also what each one prints
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# Started as a folder, this one is on the path and tests/ is not.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from batteries.bad_inputs import cases, check  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    chosen = [case for case in cases() if asked.name in case.name]
    failed = 0
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                printed = check(case, Path(folder))
            except AssertionError as error:
                failed += 1
                print(f"FAILED  {error}\n", flush=True)
            else:
                if asked.show:
                    print(f"{case.name}\n{printed}", flush=True)
    print(f"{len(chosen)} bad inputs, {failed} not as they must be")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
