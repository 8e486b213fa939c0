"""The runs that the battery kills and starves: of every method, and of what differs on disk; a second or less each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

import tiny_turns
from sharpen.launch.run import resume, start
from sharpen.methods import METHODS
from sharpen.recipe.schema import Recipe
from sharpen.runs import sample_files
from sharpen.runs.folder import read_metrics
from tiny_runs import SETTINGS, digits, given, tiny_recipe, untimed

STEPS = 4
# So that runs of so few steps have merged files of samples.
sample_files.MERGED_STEPS = 2
Counted = Literal["last step", "resume", "start"]
"""Where the operations are counted from."""


@dataclass(frozen=True)
class Case:
    """A recipe; ``best`` where the run must have had its best step, for the case to be what it is meant to be."""

    method: dict[str, Any]
    counted: Counted = "last step"
    changes: dict[str, Any] = field(default_factory=dict)
    best: int | None = None
    short: bool = False


WORSENING = {"optimizer": {"learning_rate": 0.1, "warmup_steps": 0, "schedule": "constant"}}
"""A reward model's loss on held-out pairs is then least in the middle."""
CENTRED = {**WORSENING, "checkpoint": {"best": "loss", "keep": 1}}
TURNS = {"rollout": tiny_turns.TURNS}
LORA = {"model": {"lora": {"rank": 2, "alpha": 4}}}
LAG = {"rollout": {"lag": 2}}
"""The run goes on from step 2, with the batches of steps 3 and 4 drawn."""
CASES: dict[str, Case] = {
    **{name: Case({"name": name, **SETTINGS.get(name, {})}) for name in METHODS if name != "reward_model"},
    "reward_model, the best is the latest": Case({"name": "reward_model"}, changes=CENTRED, best=2, short=True),
    "reward_model, the best lies before": Case(
        {"name": "reward_model"}, changes={**CENTRED, "checkpoint": {"best": "loss", "keep": 2, "every": 1}}, best=2
    ),
    "reward_model, adapter": Case({"name": "reward_model"}, changes={**CENTRED, **LORA}, best=2),
    "reward_model, resumed": Case({"name": "reward_model"}, "resume", CENTRED, best=2),
    "ppo, shared critic": Case({"name": "ppo", "critic": "shared"}),
    "grpo, adapter": Case({"name": "grpo", **SETTINGS["grpo"]}, changes=LORA),
    "grpo, average reference": Case({"name": "grpo", "kl": {"reference": "average", "decay": 0.7}}),
    "grpo, reset reference": Case({"name": "grpo", "kl": {"reference": "reset", "reset_every": 3}}),
    "grpo, lag": Case({"name": "grpo", "group_size": 4, "tis_cap": 2.0}, changes={"rollout": {"lag": 1}}),
    "grpo, lag of two": Case({"name": "grpo", "group_size": 4, "tis_cap": 2.0}, changes=LAG, short=True),
    "grpo, lag of two, from its start": Case(
        {"name": "grpo", "group_size": 2, "old": "rollout"}, "start", {**LAG, "checkpoint": {"every": 1, "keep": 9}}
    ),
    "dapo, lag of two": Case({"name": "dapo", **SETTINGS["dapo"], "tis_cap": 2.0}, changes=LAG),
    "grpo, from its start": Case({"name": "grpo", "group_size": 2}, "start", {"checkpoint": {"every": 1, "keep": 1}}),
    "grpo, turns": Case({"name": "grpo", **SETTINGS["grpo"]}, changes=TURNS, short=True),
    "gspo, turns": Case({"name": "gspo", **SETTINGS["gspo"]}, changes=TURNS),
    "ppo, turns": Case({"name": "ppo", **SETTINGS["ppo"]}, changes=TURNS),
    "grpo, turns drawn ahead": Case(
        {"name": "grpo", "group_size": 4, "old": "rollout"}, changes={"rollout": {**tiny_turns.TURNS, "lag": 1}}
    ),
    "rft, from its start": Case(
        {"name": "rft", **SETTINGS["rft"]},
        "start",
        {"training": {"steps": 1}, "evaluation": {"every": 0}, "checkpoint": {"best": None}},
        short=True,
    ),
}


def recipe_of(case: Case, run: Path, model: Path) -> Recipe:
    preferences = case.method["name"] in ("reward_model", "process_reward_model")
    answers = not preferences and case.changes.get("evaluation", {}).get("every") != 0
    settings: dict[str, Any] = {
        **({} if preferences else {"reward": "<given in Python>"}),
        "training": {"steps": STEPS, **case.changes.get("training", {})},
        "checkpoint": {"best": "loss" if preferences else "reward", "keep": 1, **case.changes.get("checkpoint", {})},
        "evaluation": {**({"n": 2} if answers else {}), **case.changes.get("evaluation", {})},
    }
    changes = {key: value for key, value in case.changes.items() if key not in settings}
    return tiny_recipe(run, model, case.method["name"], method=case.method, **settings, **changes)


def rewarded(recipe: Recipe) -> dict[str, Any]:
    """What is given in Python: a reward, where the method makes a policy."""
    return {} if recipe.reward is None else {"reward": digits}


def go_on(run: Path, recipe: Recipe) -> None:
    """What a person does with a run that was killed."""
    if (run / "recipe.yaml").exists():
        ended = resume(run, rewarded(recipe))
    else:
        ended = start(given(recipe.model_copy(update={"run": run}), rewarded(recipe)))
    assert ended.finished


def _refuse(damage: str) -> None:
    raise AssertionError(damage)


def all_of(run: Path) -> dict[str, Any]:
    """Everything in the folder of a run, timings aside: names, and bytes of what has no times in it."""
    found: dict[str, Any] = {str(file.relative_to(run)): None for file in sorted(run.rglob("*"))}
    for name in found:
        if (name.startswith("checkpoints/") and (run / name).is_file()) or name == "kept.jsonl":
            found[name] = (run / name).read_bytes()
        elif name.endswith(".parquet"):
            found[name] = pq.read_table(run / name).to_pylist()
    return {**found, "metrics.jsonl": untimed(read_metrics(run, _refuse))}
