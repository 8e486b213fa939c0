"""Whole runs of a second or less, and what they leave behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.models.character_model import create_character_model
from sharpen.recipe.loading import make_recipe
from sharpen.recipe.schema import Recipe
from sharpen.runs.folder import read_metrics

TASK = (
    "arithmetic?terms=2&digits=1&train_size=10&held_out_size=6&demonstration_size=14&preference_size=10"
    "&step_label_size=10"
)

REWARD_FILE = """
import time
from pathlib import Path

def digits(completion, **row):
    time.sleep(float(Path(__file__).with_suffix(".pause_s").read_text()))
    return sum(c.isdigit() for c in completion) / 8
"""


def digits(completion: str, **row: object) -> float:
    """A reward that an untrained model gets some of."""
    return sum(c.isdigit() for c in completion) / 8


def reward_file(path: Path, pause_s: float = 0.0) -> str:
    """The same reward, as a recipe names it. Its pause is no part of its source: a resumed run may have another."""
    path.write_text(REWARD_FILE)
    path.with_suffix(".pause_s").write_text(str(pause_s))
    return f"{path}:digits"


def tiny_start_model(path: Path) -> Path:
    return create_character_model(
        path, alphabet=ALPHABET, hidden=16, intermediate=24, layers=2, heads=2, context=32, seed=3
    )


SETTINGS: dict[str, Any] = {
    "grpo": {"group_size": 4, "updates_per_rollout": 2, "minibatches": 2, "beta": 0.04},
    # What an untrained model reaches.
    "rft": {"threshold": 0.25, "at_most": 2},
    "online_rft": {"threshold": 0.25},
    "ppo": {"group_size": 2, "minibatches": 2},
    "dapo": {"group_size": 4, "max_rounds": 3},
    "gspo": {"group_size": 4, "minibatches": 2},
}
"""Where a method of that name is to do more than its defaults."""


def merge(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def tiny_recipe(run: Path, model: Path, name: str, /, **changes: Any) -> Recipe:
    return make_recipe(tiny_tree(run, model, name, **changes))


def given(recipe: Recipe, objects: Mapping[str, Any]) -> Recipe:
    """The recipe with Python objects for some settings, by their paths such as ``data.train``.

    As in `tiny_tree`, a reward is for policies alone.
    """
    tree = recipe.tree()
    for path, value in objects.items():
        if path == "reward" and not recipe.method.makes_a_policy:
            continue
        section, _, name = path.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return make_recipe(tree)


def tiny_tree(run: Path, model: Path, name: str, /, **changes: Any) -> dict[str, Any]:
    """Six steps over ten problems or fourteen demonstrations, so that the data begins again within the run.

    A reward model gets no reward, and what is not measured no settings of how.
    """
    has_policy = not name.endswith("reward_model")
    if not has_policy:
        changes.pop("reward", None)
    answers = {"n": 2, "k": [1, 2], "threshold": 0.5} if has_policy else {}
    measured = changes.get("evaluation", {}).get("every") != 0
    tree = {
        "run": str(run),
        "seed": 7,
        "model": {"path": str(model), "device": "cpu"},
        "method": {"name": name, **SETTINGS.get(name, {})},
        "data": {"task": TASK},
        "rollout": {"max_new_tokens": 8} if has_policy else {},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.01, "warmup_steps": 2, "schedule": "cosine"},
        "training": {"steps": 6, "prompts_per_step": 4, "tokens_per_microbatch": 80},
        "evaluation": {"every": 2, "prompts": 6, **answers} if measured else {},
        "checkpoint": {"every": 2, "keep": 2, "best": "reward"},
    }
    merged = merge(tree, changes)
    if merged["training"]["steps"] < merged["optimizer"].get("warmup_steps", 0) and "warmup_steps" not in changes.get(
        "optimizer", {}
    ):
        # A run of one step has no time for it.
        merged["optimizer"] = {**merged["optimizer"], "warmup_steps": 0}
    return merged


def untimed(rows: list[dict[str, float]], leave_out: tuple[str, ...] = ()) -> list[dict[str, float]]:
    prefixes = ("time/", "tokens_per_s/", *leave_out)
    return [{key: value for key, value in row.items() if not key.startswith(prefixes)} for row in rows]


def left_behind(run: Path, step: int = 6) -> dict[str, Any]:
    """Everything of a run that must be the same again: bytes of all weights and state, metrics, samples.

    The state names the files of the recipe, which may be in another folder for another run.
    """
    checkpoint = run / "checkpoints" / f"step_{step:06d}"
    state = re.sub(rb'"/[^"]*/', b'"./', (checkpoint / "trainer" / "state.json").read_bytes())
    kept = run / "kept.jsonl"
    return {
        **{str(file.relative_to(checkpoint)): file.read_bytes() for file in sorted(checkpoint.rglob("*.safetensors"))},
        "trainer/state.json": state,
        **({"kept.jsonl": kept.read_bytes()} if kept.exists() else {}),
        "metrics": untimed(read_metrics(run)),
        **{
            kind: {file.name: pq.read_table(file).to_pylist() for file in sorted((run / kind).glob("*.parquet"))}
            for kind in ("samples", "held_out")
        },
    }


def assert_left_the_same(run: Path, expected: Mapping[str, Any], step: int = 6) -> None:
    found = left_behind(run, step)
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


class Raising:
    """A logger that raises once, when ``when`` says so."""

    def __init__(self, when: Callable[[int], bool], action: Callable[[], None]) -> None:
        self.when, self.action = when, action

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.when(step):
            self.action()

    def close(self) -> None:
        pass
