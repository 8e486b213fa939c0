"""What sharpen reaches on one NVIDIA GPU, in one call: checks, decoding, training, and whole steps beside TRL's.

    python benchmarks/gpu.py [--output FILE.json] [--markdown FILE.md]
    python benchmarks/gpu.py --part steps --rival "TRL, continuous batching"         # where time is short
    python benchmarks/gpu.py --device cpu --smoke       # the same code on tiny shapes, without a GPU

Needs torch, transformers and sharpen in the environment that runs it, no network and no downloaded model: models of
the shapes of SmolLM2-135M and Qwen2.5-1.5B get random weights on the spot. All matrix products are in bfloat16, after
checks in float32. The aims: a GRPO step 3 times as fast as TRL's; decoding at 60 % of its floor, which is bandwidth;
the training pass at 45 % of the matrix rate. Rate and bandwidth are measured in the same run. Ends with status 1
where a check failed or a contestant broke down.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from cases import Case
from floor import Shape
from gpu_checks import CASE, checks
from gpu_device import measure_rates
from gpu_measures import decode, train
from gpu_report import Report
from gpu_steps import alternate, rivals, sharpen

from models import ROOT, make_random
from sharpen.models.policy import load_policy

LARGE = 10**9
"""Parameters from which two contestants have to share the device's memory with care."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and what is measured with it."""

    name: str
    architecture: str
    vocabulary: int
    sizes: dict[str, Any]
    decodes: Sequence[Case]
    trains: Sequence[Case]
    step: Case
    sequences: int
    """Of a micro-batch of TRL's."""

    def folder(self, context: int) -> Path:
        place = ROOT / "runs/bench/models" / self.name
        if not (place / "config.json").is_file():
            make_random(place, self.architecture, vocabulary=self.vocabulary, context=context, **self.sizes)
        return place


def _sizes(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": True,
    }


def _case(prompt: int, limit: int, prompts: int, group: int) -> Case:
    return Case("random", prompt, limit, prompts, group, spread=False)


DECODES = (_case(128, 256, 8, 8), _case(128, 256, 16, 16))
TRAINS = (_case(128, 256, 8, 8), _case(1024, 256, 8, 8))
SUBJECTS = (
    Subject("llama-135m", "llama", 49152, _sizes(576, 1536, 30, 9, 3), DECODES, TRAINS, _case(128, 256, 16, 16), 64),
    Subject("qwen2-1.5b", "qwen2", 151936, _sizes(1536, 8960, 28, 12, 2), DECODES, TRAINS, _case(128, 256, 8, 8), 8),
)
SMALL = _case(16, 12, 2, 4)
SMOKE = (Subject("llama-smoke", "llama", 8192, _sizes(32, 48, 2, 4, 2), (SMALL,), (SMALL,), SMALL, 8),)
CHECKED = Subject("llama-checks", "llama", 512, _sizes(64, 96, 2, 4, 2), (), (), CASE, 0)
CONTEXT = 2048
PARTS = ("checks", "passes", "steps")


def measure(report: Report, subject: Subject, arguments: argparse.Namespace, logs: Path) -> None:
    if "passes" in arguments.part:
        measure_passes(report, subject, arguments)
    if "steps" in arguments.part:
        measure_steps(report, subject, arguments, logs)


def measure_passes(report: Report, subject: Subject, arguments: argparse.Namespace) -> None:
    """ModelRunner and training, each alone."""
    device: str = arguments.device
    folder = subject.folder(CONTEXT)
    shape = Shape.of(folder)
    policy = load_policy(folder, compute_dtype="bfloat16", device=device)
    for number, case in enumerate(subject.decodes):
        # What a graph is worth is seen in one case.
        for capture in (True, False) if device == "cuda" and number == 0 else (device == "cuda",):
            work = partial(decode, subject.name, policy, shape, case, report.rates, capture=capture)
            report.attempt(f"{subject.name}, decoding, {case.completions} rows", report.decoded, work)
    report.say(report.decoded_table())
    tokens = arguments.tokens_per_microbatch
    for case in subject.trains:
        pass_ = partial(train, subject.name, policy, shape, case, report.rates, tokens)
        report.attempt(f"{subject.name}, training, prompts of {case.prompt}", report.trained, pass_)
    report.say(report.trained_table())
    # The model is to leave the device before others come.
    del policy, work, pass_
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure_steps(report: Report, subject: Subject, arguments: argparse.Namespace, logs: Path) -> None:
    device: str = arguments.device
    folder = subject.folder(CONTEXT)
    shape = Shape.of(folder)
    release = shape.parameters > LARGE
    ours = sharpen(device, arguments.tokens_per_microbatch, release=release)
    others = rivals(device, subject.sequences, release=release)
    if arguments.rival:
        others = [rival for rival in others if rival.name in arguments.rival]
    for rival in others or [None]:
        taking_part = [ours] if rival is None else [ours, rival]
        stepped, failed = alternate(
            subject.name, folder, subject.step, taking_part, arguments.repetitions, logs, arguments.patience_s
        )
        report.stepped.append(stepped)
        report.failures += [f"{subject.name}, {who}: {why}" for who, why in failed.items()]
        report.say(report.stepped_table())
    if not others:
        report.note("TRL cannot be imported here: sharpen's steps stand alone.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes: whether it runs, not how fast")
    parser.add_argument("--model", action="append", choices=[s.name for s in SUBJECTS], help="default: both")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all; may be given again")
    parser.add_argument("--rival", action="append", help="only steps against this one; may be given again")
    parser.add_argument("--repetitions", type=int, help="counted steps of each contestant; default 5, in smoke 1")
    parser.add_argument(
        "--patience-s", type=float, default=150.0, help="who takes longer for a step is out; default %(default)s"
    )
    parser.add_argument("--tokens-per-microbatch", type=int, help="default: what sharpen chooses")
    parser.add_argument("--output", type=Path, help="JSON")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --smoke tries the code without one")
    arguments.part = arguments.part or PARTS
    arguments.repetitions = arguments.repetitions or (1 if arguments.smoke else 5)
    size, copied_bytes = (256, 2**24) if arguments.smoke else (8192, 2**32)
    rates = measure_rates(arguments.device, size=size, copied_bytes=copied_bytes)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    report = Report(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}", rates)
    report.say(report.head())
    if "checks" in arguments.part:
        for what, check in checks(CHECKED.folder(CONTEXT), arguments.device).items():
            report.attempt(what, report.checks, check)
        report.say(report.checks_table())
    logs = ROOT / "runs/bench/gpu"
    logs.mkdir(parents=True, exist_ok=True)
    for subject in SMOKE if arguments.smoke else SUBJECTS:
        if arguments.smoke or arguments.model is None or subject.name in arguments.model:
            measure(report, subject, arguments, logs)
            # What is measured so far stays, whatever happens to the next model.
            _write(report, arguments)
    sys.exit(0 if report.sound else 1)


def _write(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    if arguments.markdown is not None:
        arguments.markdown.write_text(report.markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
