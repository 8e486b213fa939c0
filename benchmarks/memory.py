"""The memory that `sharpen run --dry-run` expects, beside what the run then takes: five recipes on SmolLM2-135M.

    sharpen get smollm2
    python benchmarks/memory.py [--case CASE ...]

Every run is of two steps, in a process of its own. Measured is the kernel's peak (VmHWM) less what the process has
once torch, transformers and sharpen are imported; expected is the total of the dry run. The test of this project wants
them to be within 20 % of each other. Takes some minutes on 2 cores; prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sharpen.launch.dry_run import dry_run
from sharpen.recipe.loading import make_recipe
from sharpen.training.memory import ExpectedMemory, total

MIB = 2**20
MODEL = "models/SmolLM2-135M-Instruct"
WORDS = {"data": {"task": "words"}, "rollout": {"max_new_tokens": 32}}
BFLOAT16 = {"path": MODEL, "compute_dtype": "bfloat16"}
STEPS = {"steps": 2, "prompts_per_step": 4}
LARGER = {**STEPS, "tokens_per_microbatch": 1200}


def cases(folder: Path) -> dict[str, dict[str, Any]]:
    """The recipes by name; ``folder`` takes their data."""
    demonstrations = folder / "demonstrations.jsonl"
    demonstrations.write_text("".join(json.dumps(row) + "\n" for row in _demonstrations()), encoding="utf-8")
    return {
        "grpo": {"model": MODEL, "method": "grpo", "training": STEPS, **WORDS},
        "grpo-reference": {
            "model": BFLOAT16,
            "method": {"name": "grpo", "beta": 0.04},
            "training": LARGER,
            **WORDS,
        },
        "ppo": {"model": MODEL, "method": {"name": "ppo", "group_size": 4}, "training": STEPS, **WORDS},
        "sft": {
            "model": MODEL,
            "method": "sft",
            "training": {**STEPS, "prompts_per_step": 8},
            "data": {"train": str(demonstrations)},
        },
        "grpo-lora": {"model": {**BFLOAT16, "lora": {"rank": 16}}, "method": "grpo", "training": LARGER, **WORDS},
    }


def compare(name: str, tree: dict[str, Any], folder: Path) -> tuple[ExpectedMemory, int]:
    """What is expected, and the bytes that the run takes."""
    recipe = make_recipe({**tree, "run": str(folder / name)})
    expected = dry_run(recipe, say=lambda text: print(text, file=sys.stderr)).memory
    file = folder / f"{name}.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    worker = [sys.executable, str(Path(__file__).with_name("memory_worker.py")), str(file)]
    done = subprocess.run(worker, capture_output=True, text=True, check=True)
    return expected, int(done.stdout.splitlines()[-1])


def row(name: str, expected: ExpectedMemory, measured: int) -> str:
    phase = expected.peak_phase
    largest = total(expected.phases[phase]) if phase is not None else 0
    sizes = (total(expected.always), largest, expected.heap, expected.total, measured)
    cells = [name, *(f"{size / MIB:.0f}" for size in sizes), f"{expected.total / measured:.2f}"]
    return f"| {' | '.join(cells)} |"


def _demonstrations() -> Iterator[dict[str, str]]:
    drawn = random.Random(0)
    words = ("river", "mountain", "walks", "under", "bright", "sky", "children", "sing", "old", "songs", "winter")
    for _ in range(64):
        yield {
            "prompt": f"Write about {drawn.choice(words)}.",
            "completion": " ".join(drawn.choices(words, k=drawn.randint(60, 180))),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append")
    chosen = parser.parse_args().case
    print("| recipe | always, MiB | largest phase | free and not usable | expected | measured | ratio |")
    print("|" + "---|" * 7, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, tree in cases(folder).items():
            if chosen is None or name in chosen:
                print(row(name, *compare(name, tree, folder)), flush=True)


if __name__ == "__main__":
    main()
