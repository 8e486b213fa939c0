"""The demo: SFT of a small model on flawed arithmetic demonstrations, then GRPO to do better than they do."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path

import torch
from rich.console import Console as RichConsole
from rich.text import Text

from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.evaluation.estimators import Estimate
from sharpen.evaluation.runner import Evaluation
from sharpen.launch.handle import Run
from sharpen.launch.inputs import read_held_out
from sharpen.launch.measure import measure
from sharpen.launch.run import start
from sharpen.launch.source_rows import Say
from sharpen.models.character_model import create_character_model
from sharpen.recipe.loading import load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.report.console import complain, safe_console
from sharpen.report.page.at_end import report_at_end
from sharpen.report.plot import Stage, plot_run
from sharpen.report.progress import Console
from sharpen.report.table import Answer, Example, before_after_table, examples_panel
from sharpen.runs.folder import REPORT
from sharpen.runs.lock import run_lock
from sharpen.system.files import named_write_errors, write_text
from sharpen.system.signals import Stopped

SHOWN = {
    "pass@1": "pass@1",
    "pass@8": "pass@8",
    "pass@64": "pass@64",
    "maj@8": "maj@8",
    "reward/shows_work": "shows its work",
    "length": "length",
}
"""The measures shown, and their display names."""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the demo: steps per stage, held-out problems, and completions sampled per problem."""

    sft_steps: int
    grpo_steps: int
    problems: int
    n: int


FULL = Size(sft_steps=800, grpo_steps=80, problems=200, n=64)
QUICK = Size(sft_steps=8, grpo_steps=2, problems=8, n=64)


WRITTEN = ("model", "sft", "grpo", "plot.png", REPORT, "summary.json")
"""The demo's outputs, in the order they are written."""


def demo(folder: Path, *, quick: bool = False) -> None:
    """SFT, evaluate, GRPO, evaluate; writes ``summary.json`` and ``plot.png``, replacing an earlier demo's output.

    The earlier output stays in ``earlier`` until this demo has finished. ``quick`` runs every stage in seconds, with a
    model that learns nothing.

    Raises RunInUseError if another process is running this demo or resuming one of its runs.
    """
    out = safe_console()

    def say(text: str) -> None:
        out.print(text)

    with run_lock(folder, say):
        _set_aside(folder, say)
        with named_write_errors(folder, "the demo"):
            _demo(folder, QUICK if quick else FULL, out)
        shutil.rmtree(folder / "earlier", ignore_errors=True)


def _set_aside(folder: Path, say: Say) -> None:
    """Move a finished demo's output to ``earlier``; remove an unfinished one's."""
    there = [folder / name for name in WRITTEN if (folder / name).exists()]
    # summary.json is moved last: if this demo is killed before that, the next one moves the rest.
    whole = (folder / "summary.json").exists()
    with ExitStack() as held:
        for path in there:
            if (path / "recipe.yaml").exists():
                held.enter_context(run_lock(path, say))
        for path in there:
            if whole:
                earlier = folder / "earlier" / path.name
                earlier.parent.mkdir(exist_ok=True)
                _remove(earlier)
                path.rename(earlier)
            else:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _demo(folder: Path, size: Size, out: RichConsole) -> None:
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    out.print(
        Text.assemble(
            ("A small language model learns arithmetic.", "bold"),
            " It first imitates demonstrations of which some guess and some have slips, then improves by reinforcement "
            "learning against a verifier.\n",
        )
    )
    model = create_character_model(folder / "model", alphabet=ALPHABET)
    recipe = _recipe("demo_sft.yaml", folder / "sft", model, size.sft_steps, size.problems // 2)
    sft, seconds["sft"] = _stage("1/4 SFT ", recipe)
    before, seconds["measure_before"] = _measured("2/4 measure", recipe, sft, size, out)
    recipe = _recipe("demo_grpo.yaml", folder / "grpo", sft.model, size.grpo_steps, size.problems // 2)
    grpo, seconds["grpo"] = _stage("3/4 GRPO", recipe)
    after, seconds["measure_after"] = _measured("4/4 measure", recipe, grpo, size, out)
    seconds["all"] = time.perf_counter() - started

    _show(out, before, after)
    plot = folder / "plot.png"
    plot_run(
        [Stage("SFT", sft.metric_rows()), Stage("GRPO", grpo.metric_rows())],
        plot,
        _shown(before),
        _shown(after),
        title="sharpen demo: arithmetic, 0.95 M parameters, on CPU",
    )
    summary = {
        "before": before.to_json(),
        "after": after.to_json(),
        "seconds": {part: round(s, 1) for part, s in seconds.items()},
        "problems": size.problems,
        "answers_per_problem": size.n,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("sharpen", "torch", "transformers")},
        "model_before": str(sft.model),
        "model_after": str(grpo.model),
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    report = report_at_end(folder, complain)
    out.print(f"\nAll of it took {seconds['all']:.0f} s. Written to {folder}:")
    for path, what in (
        *([] if report is None else [(report, "both runs as a page: curves, answers, tokens; open it in a browser")]),
        (plot, "the picture of the run"),
        (folder / "summary.json", "these numbers"),
        (grpo.model, "the model, an ordinary Hugging Face folder"),
        (grpo.path / "metrics.jsonl", "every step of GRPO"),
        (grpo.path / "samples", "every answer drawn, with its reward"),
    ):
        out.print(f"  {path}  {what}", highlight=False, soft_wrap=True)
    out.print(Text.assemble("\nTry it: ", (f"sharpen chat {grpo.path}", "bold"), ", then type 7+8-3+9="))


def _recipe(name: str, run: Path, model: Path, steps: int, problems: int) -> Recipe:
    with as_file(files("sharpen.pipelines") / name) as path:
        return load_recipe(
            path, [f"run={run}", f"model={model}", f"training.steps={steps}", f"evaluation.prompts={problems}"]
        )


def _stage(name: str, recipe: Recipe) -> tuple[Run, float]:
    started = time.perf_counter()
    with Console(name, total=recipe.training.steps) as console:
        run = start(recipe, loggers=[console], say=console.say)
    if not run.finished:
        raise Stopped(run.signum or signal.SIGINT)
    return run, time.perf_counter() - started


def _measured(name: str, recipe: Recipe, run: Run, size: Size, out: RichConsole) -> tuple[Evaluation, float]:
    started = time.perf_counter()
    settings = recipe.evaluation.model_copy(update={"prompts": size.problems, "n": size.n, "k": (1, 8, 64)})
    recipe = recipe.model_copy(update={"evaluation": settings})
    evaluation = measure(recipe, read_held_out(recipe), run.model)
    took = time.perf_counter() - started
    right = evaluation.measures["pass@1"].mean
    out.print(
        f"{name}  {size.problems} problems that no stage has seen × {size.n} answers: "
        f"pass@1 {right:.1%}  ({took:.0f} s)",
        highlight=False,
    )
    return evaluation, took


def _show(out: RichConsole, before: Evaluation, after: Evaluation) -> None:
    out.print()
    out.print(
        before_after_table(
            _shown(before), _shown(after), title="On problems that neither stage has seen", plain=["length"]
        )
    )
    out.print(
        "pass@k: at least one of k answers is right. maj@8: the most frequent of 8 is. RL moves pass@1 and maj@k up; "
        "pass@64 stays where it was: what is right was already in reach, now it is what the model says.\n"
    )
    out.print(examples_panel([_example(before, after, i) for i in range(3)], title="The first three problems"))


def _shown(evaluation: Evaluation) -> dict[str, Estimate]:
    return {name: evaluation.measures[measure] for measure, name in SHOWN.items()}


def _example(before: Evaluation, after: Evaluation, index: int) -> Example:
    def answers(evaluation: Evaluation) -> list[Answer]:
        group, right = evaluation.groups[index], evaluation.right[index]
        return [Answer(c.text, r) for c, r in list(zip(group.trajectories, right, strict=True))[:4]]

    prompt = before.groups[index].prompt
    return Example(prompt.text, str(prompt.row["answer"]), answers(before), answers(after))
