"""Flips, cuts and additions to every file of checkpoints: named by its own path, passed over by its run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from batteries.checkpoint_damage import damaged
from batteries.part import Outcome
from sharpen.launch.run import start
from tiny_runs import reward_file, tiny_recipe, tiny_start_model

FLIPS, CUTS = 3, 3
WHOLE: dict[str, dict[str, Any]] = {
    "ppo, lag": {"method": {"name": "ppo", "group_size": 2, "old": "rollout"}, "rollout": {"lag": 1}},
    "grpo, adapter, average reference": {
        "method": {"name": "grpo", "group_size": 2, "kl": {"reference": "average", "decay": 0.7}},
        "model": {"lora": {"rank": 2, "alpha": 4}},
    },
    "reward_model": {"method": {"name": "reward_model"}},
}


def damage(short: bool) -> Outcome:
    """In the short form one flip and one cut of each file of one run's checkpoint, which is not resumed."""
    outcome = Outcome()
    for name, changes in list(WHOLE.items())[: 1 if short else None]:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            recipe = tiny_recipe(
                folder / "run",
                tiny_start_model(folder / "model"),
                changes["method"]["name"],
                **changes,
                reward=reward_file(folder / "reward.py"),
                training={"steps": 4},
                evaluation={"every": 0},
                checkpoint={"every": 1, "keep": 2, "best": None},
            )
            assert start(recipe).finished
            tried, wrong = damaged(
                folder / "run", folder, flips=1 if short else FLIPS, cuts=1 if short else CUTS, goes_on=not short
            )
            outcome.cases += tried
            for problem in wrong:
                outcome.failed(f"{name}: {problem}")
            print(f"{name}: {tried} damages", flush=True)
    return outcome
