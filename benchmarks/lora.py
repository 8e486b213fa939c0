"""GRPO with all weights and with LoRA: memory and time of a step, each in a process of its own.

    python benchmarks/lora.py [MODEL]

Eight groups of eight completions of at most 32 tokens; β is 0.04, so that there is a reference. Computed in bfloat16
where the processor has it, else in float32; the first line says which.
Prints, in MiB, the resident memory with everything loaded but nothing done yet (weights, reference),
the peak of the steps above that, and their sum; both without what Python and its libraries take. Then the checkpoint's
size and the median time of the steps after the first.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from sharpen.models.dtype import resolve_dtype

STEPS, RANK, TOKENS = 5, 16, (8192, 1024)
KINDS: dict[str, Any] = {"all weights": None, f"LoRA, rank {RANK}": {"rank": RANK, "alpha": 2 * RANK}}


def measure(model: str, tokens: int, lora: Any) -> dict[str, float]:
    from sharpen.launch.build import built_trainer
    from sharpen.launch.inputs import read_inputs
    from sharpen.recipe.loading import make_recipe
    from sharpen.runs.folder import read_metrics

    with tempfile.TemporaryDirectory() as folder:
        recipe = make_recipe(
            {
                "run": f"{folder}/run",
                "model": {"path": model, "compute_dtype": "auto", "lora": lora},
                "method": {"name": "grpo", "group_size": 8, "beta": 0.04},
                "data": {"task": "words"},
                "rollout": {"max_new_tokens": 32},
                # So small that all draw, and train on, the same completions.
                "optimizer": {"learning_rate": 1e-9},
                "training": {"steps": STEPS, "prompts_per_step": 8, "tokens_per_microbatch": tokens},
            }
        )
        inputs = read_inputs(recipe)
        begun = resident("VmRSS")
        with built_trainer(recipe, inputs, loggers=[], say=print, trust_remote_code=False, checkpoint=None) as trainer:
            trainer.folder.initialise(recipe.to_yaml())
            loaded = resident("VmRSS")
            # The kernel forgets the peak that loading had.
            Path("/proc/self/clear_refs").write_text("5")
            trainer.run()
        peak = resident("VmHWM")
        saved = sum(f.stat().st_size for f in (recipe.run / "checkpoints").rglob("*") if f.is_file())
        rows = read_metrics(recipe.run)
        seconds = statistics.median(row["time/step_s"] for row in rows if row["step"] > 1)
        trained = statistics.median(row["time/training_s"] for row in rows if row["step"] > 1)
    return {
        "loaded": loaded - begun,
        "above": peak - loaded,
        "peak": peak - begun,
        "checkpoint": saved / 2**20,
        "step_s": seconds,
        "training_s": trained,
    }


def resident(what: str) -> float:
    """MiB, as the kernel counts them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def main(model: str) -> None:
    print(f"computed in {resolve_dtype('auto', torch.device('cpu'))}")
    for tokens in TOKENS:
        print(f"micro-batches of at most {tokens} tokens")
        for name in KINDS:
            command = [sys.executable, __file__, model, str(tokens), name]
            measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
            figures = (f"{key} {value:.{1 if key.endswith('_s') else 0}f}" for key, value in measured.items())
            print(f"  {name:16} {'   '.join(figures)}", flush=True)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "models/SmolLM2-135M-Instruct"
    if len(sys.argv) > 2:
        print(json.dumps(measure(given, int(sys.argv[2]), KINDS[sys.argv[3]])))
    else:
        main(given)
