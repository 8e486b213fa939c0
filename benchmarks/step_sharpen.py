"""The worker that trains with sharpen's own trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cases import EPSILON, LEARNING_RATE, MAX_GRAD_NORM, SEED, case_of, reward
from forced_sharpen import engine_of_lengths
from places import place_of
from worker import Gate

from sharpen.data.cursor import Cursor
from sharpen.launch import build as building
from sharpen.launch.inputs import read_inputs
from sharpen.models.model import Model
from sharpen.recipe.loading import make_recipe

build: Any = building


class Steps:
    """A logger of metrics is called once at the end of each step: there it answers, and waits for the next."""

    def __init__(self, gate: Gate, completions: int) -> None:
        self._gate = gate
        self._completions = completions

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if metrics["groups/zero_spread"]:
            raise ValueError(f"step {step} has groups whose rewards are all equal, which cost sharpen nothing")
        self._gate.done(
            rollout_s=metrics["time/rollout_s"],
            reward_s=metrics["time/reward_s"],
            training_s=metrics["time/training_s"],
            tokens=round(metrics["length/mean"] * self._completions),
        )

    def close(self) -> None:
        return


def in_drawing_order(texts: list[str]) -> list[dict[str, str]]:
    """Rows that a run with this seed draws in the order of ``texts``."""
    rows = [{"prompt": ""} for _ in texts]
    for text, place in zip(texts, Cursor(len(texts), SEED).take(len(texts)), strict=True):
        rows[place] = {"prompt": text}
    return rows


def main() -> None:
    gate = Gate()
    settings = gate.settings()
    case = case_of(settings["case"])
    device = settings.get("device", "cpu")
    gate.place = place_of(device, release=settings.get("release", False))
    torch.set_num_threads(settings["threads"])
    torch.set_num_interop_threads(1)
    forced = engine_of_lengths(case.lengths())
    build.make_engine = lambda settings, policy: forced(policy, max_sequences=settings.max_sequences)
    load = build.load_model

    def load_and_note(*args: Any, **kwargs: Any) -> Model:
        model: Model = load(*args, **kwargs)
        gate.loaded()
        return model

    build.load_model = load_and_note
    with tempfile.TemporaryDirectory() as folder:
        recipe = make_recipe(
            {
                "run": Path(folder) / "run",
                "seed": SEED,
                "model": {"path": settings["model"], "compute_dtype": settings["dtype"], "device": device},
                "method": {"name": "grpo", "group_size": case.group, "beta": 0.0},
                "data": {"train": in_drawing_order(settings["prompts"])},
                "reward": reward,
                "rollout": {"max_new_tokens": case.limit},
                "optimizer": {"learning_rate": LEARNING_RATE, "max_grad_norm": MAX_GRAD_NORM},
                "training": {"steps": 10**6, "prompts_per_step": case.prompts, **settings.get("training", {})},
                "log": {"samples_every": 0},
            }
        )
        assert (recipe.method.eps_low, recipe.method.eps_high) == (EPSILON, EPSILON)  # type: ignore[attr-defined]
        inputs = read_inputs(recipe)
        with build.built_trainer(
            recipe,
            inputs,
            loggers=[Steps(gate, case.completions)],
            say=lambda _: None,
            trust_remote_code=False,
            checkpoint=None,
        ) as trainer:
            trainer.folder.initialise(recipe.to_yaml())
            gate.ready("sharpen", "torch", "transformers")
            trainer.run()


if __name__ == "__main__":
    main()
