"""sharpen against its peers, in one run, taking turns.

python benchmarks/bench.py                          # a training step of every case
python benchmarks/bench.py --case smollm2-48x48     # of one
python benchmarks/bench.py --rollout                # sampling alone
python benchmarks/bench.py --markdown RESULT.json   # the tables of a run that was made
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import CASES, Case
from contestants import ROOT, Contestant, Running
from floor import Rates, Shape, rollout, training
from lineup import drawing, dtype_of, stepping
from machine import description
from rates import measure
from tables import markdown
from transformers import AutoTokenizer, logging

from models import model_of, prompts_of

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}
WARM_UP = {"step": 2, "rollout": 2}


def main() -> None:
    options = _options()
    if options.markdown:
        print("\n".join(markdown(json.loads(file.read_text(encoding="utf-8"))) for file in options.markdown))
        return
    kind = "rollout" if options.rollout else "step"
    cases = [CASES[name] for name in options.case or CASES if kind == "step" or options.case or "smollm2" in name]
    folder = ROOT / "runs/bench" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    logging.disable_progress_bar()
    result: dict[str, Any] = {"machine": description(), "commit": _commit(), "matches": []}
    for case in cases:
        contestants = drawing(case) if kind == "rollout" else stepping(case)
        contestants = [one for one in contestants if not options.only or one.name in options.only]
        _require(contestants)
        # What the machine does changes within an hour, where others share it.
        dtype = dtype_of(case)
        measured = _measured(dtype)
        match = {
            "kind": kind,
            "case": case.name,
            "prompts": case.prompts,
            "group": case.group,
            "tokens": sum(case.lengths()),
            "dtype": dtype,
            **measured,
            "floor": _floor(case, Rates(**measured["rates"])),
            "contestants": play(case, kind, contestants, options.repetitions, folder),
        }
        result["matches"].append(match)
        (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(markdown({**result, "matches": [match]}), flush=True)
    print(f"{folder.relative_to(ROOT)}/result.json")


def play(case: Case, kind: str, contestants: list[Contestant], repetitions: int, folder: Path) -> list[dict[str, Any]]:
    """All contestants take turns, on the same prompts; what is not counted comes first."""
    place = model_of(case)
    turns = WARM_UP[kind] + repetitions
    texts = prompts_of(case, place, case.prompts * turns)
    ids = AutoTokenizer.from_pretrained(place)(texts)["input_ids"]
    settings: dict[str, Any] = {"case": case.name, "model": str(place)}
    if kind == "step":
        settings["prompts"] = texts
    else:
        settings["prompt_ids"] = [ids[i : i + case.prompts] for i in range(0, len(ids), case.prompts)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(Running(one, settings, folder / f"{case.name}-{number}.log"))
            for number, one in enumerate(contestants)
        ]
        counted: list[list[dict[str, float]]] = [[] for _ in running]
        for turn in range(turns):
            for one, figures in zip(running, counted, strict=True):
                taken = one.step()
                if taken["tokens"] != sum(case.lengths()):
                    sys.exit(f"{one.contestant.name} drew {taken['tokens']} tokens, not {sum(case.lengths())}")
                if turn >= WARM_UP[kind]:
                    figures.append(taken)
                print(
                    f"{case.name} {turn + 1}/{turns} {one.contestant.name}: {taken['seconds']:.2f} s", file=sys.stderr
                )
    return [
        {
            "name": one.contestant.name,
            "settings": one.contestant.settings,
            "variables": one.contestant.variables,
            **one.facts,
            "turns": figures,
        }
        for one, figures in zip(running, counted, strict=True)
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), action="append", help="only this one; may be given again")
    parser.add_argument("--rollout", action="store_true", help="sampling alone, also against vLLM")
    parser.add_argument("--repetitions", type=int, default=5, help="turns that count")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this contestant; may be given again")
    parser.add_argument("--markdown", type=Path, nargs="+", metavar="RESULT", help="print the tables of earlier runs")
    return parser.parse_args()


def _require(contestants: list[Contestant]) -> None:
    for one in contestants:
        if not one.python.is_file():
            sys.exit(f"{one.name} needs the environment {one.environment}: make {one.environment}/.done")


def _measured(dtype: str) -> dict[str, Any]:
    rates, by_product = measure(dtype)
    return {
        "rates": {
            "operations": rates.operations,
            "memory": rates.memory,
            "cache": rates.cache,
            "cache_bytes": rates.cache_bytes,
        },
        "products": by_product,
    }


def _floor(case: Case, rates: Rates) -> dict[str, float]:
    shape, lengths, number = Shape.of(model_of(case)), case.lengths(), NUMBER_BYTES[dtype_of(case)]
    drawn = rates.seconds(rollout(shape, case, lengths, number))
    trained = rates.seconds(training(shape, case, lengths, number))
    return {"rollout_s": drawn, "training_s": trained, "seconds": drawn + trained}


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
