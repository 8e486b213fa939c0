"""A step of a run is the method's formula: of the weights, groups and reference that the step really had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles.methods import LOSSES, Said
from sharpen.data.collate import collate
from sharpen.launch.run import start
from sharpen.methods import METHODS, Role, resolve_method
from sharpen.models.model import Model
from sharpen.models.policy import load_policy
from sharpen.models.scorer import load_scorer
from sharpen.training.trainer import Trainer
from sharpen.types import Group
from tiny_runs import SETTINGS, digits, given, tiny_recipe, tiny_start_model
from whole_steps import plain_step, said_by

TEMPERATURE = 0.8
STEP = 2
"""After a first step the policy has left the reference, and a critic is no longer 0."""

ONE_UPDATE = {"updates_per_rollout": 1, "minibatches": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"name": name, **SETTINGS.get(name, {})} for name in METHODS},
    "grpo": {"name": "grpo", "group_size": 4, "beta": 0.3, **ONE_UPDATE},
    "gspo": {"name": "gspo", "group_size": 4, **ONE_UPDATE},
    "ppo": {"name": "ppo", "group_size": 2, "beta": 0.3, **ONE_UPDATE},
    "grpo exact": {"name": "grpo", "group_size": 4, "beta": 0.3, "kl": {"estimator": "exact"}, "entropy_coef": 0.1},
    "grpo exact in the reward": {
        "name": "grpo",
        "group_size": 4,
        "beta": 5.0,
        "std": "none",
        "kl": {"estimator": "exact", "placement": "reward"},
    },
    "grpo warmed up": {"name": "grpo", "group_size": 4, "beta": 0.6, "kl": {"warmup_steps": 2, "estimator": "k2"}},
    "ppo shared": {
        "name": "ppo",
        "group_size": 2,
        "critic": "shared",
        "value_coef": 0.5,
        "bootstrap_truncated": True,
        **ONE_UPDATE,
    },
    "ppo cut off": {"name": "ppo", "group_size": 2, "gamma": 0.9, "bootstrap_truncated": True, **ONE_UPDATE},
    "grpo without the truncated": {"name": "grpo", "group_size": 4, "mask_truncated": True, "tis_cap": 2.0},
    "reinforce kl": {"name": "rloo", "beta": 0.3, "kl": {"placement": "reward", "estimator": "k3"}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("every") / "model")


def loaded(role: Role, path: Path) -> Model:
    if role == "policy":
        return load_policy(path, device="cpu")
    return load_scorer(path, kind="sequence" if role == "outcome_reward_model" else "token", device="cpu")


def floats(rows: list[list[Tensor]]) -> Tensor:
    return torch.tensor([[value.item() for value in row] for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_of_a_step_are_the_formulas(
    name: str, model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    method: Any = resolve_method(VARIANTS[name])
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        method.name,
        method=method.model_dump(),
        reward="<given in Python>",
        rollout={"temperature": TEMPERATURE} if method.source().on_policy else {},
        training={"steps": STEP, "tokens_per_microbatch": 60},
        optimizer={"warmup_steps": 0, "learning_rate": 0.02},
        evaluation={"every": 0},
        checkpoint={"every": 1, "best": None},
    )
    [*_, row] = start(given(recipe, {"reward": digits})).metric_rows()

    before = tmp_path / "run" / "checkpoints" / f"step_{STEP - 1:06d}"
    main, *others = (objective.model for objective in method.objectives())
    trained = {main: loaded(main, before), **{role: loaded(role, before / role) for role in others}}
    temperature = TEMPERATURE if method.source().on_policy else 1.0
    batch = collate(drawn[STEP - 1], completion_limit=8)
    batch = replace(batch, coefficients={k: c.at(STEP, c.initial) for k, c in method.coefficients().items()})
    reference = load_policy(model, device="cpu")
    said = {role: said_by(of, batch, temperature, reference) for role, of in trained.items()}
    policy = said.get("policy", Said())
    step = plain_step(batch)
    step.old = floats(policy.logprobs).tolist()
    step.divergence = floats(policy.divergences).tolist()
    step.reference = floats(said_by(reference, batch, temperature).logprobs).tolist()
    critic = said.get("critic", policy)
    step.values = floats(critic.values).tolist()
    if critic.scores:
        step.final = [row[n - 1].item() for row, n in zip(critic.scores, batch.lengths_E.tolist(), strict=True)]

    losses = LOSSES[method.name](method, step, said)
    for role, loss in losses.items():
        prefix = "" if role == main else f"{role}/"
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained[role].parameters() if p.grad is not None])
        assert norm > 1e-3
        assert row[f"{prefix}loss"] == pytest.approx(loss.item(), rel=1e-3, abs=1e-5), role
        assert row[f"{prefix}grad_norm"] == pytest.approx(norm.item(), rel=1e-3), role


@pytest.mark.parametrize("name", METHODS)
def test_a_method_loads_a_reference_only_where_it_compares_with_one(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Trainer] = []
    begin = Trainer.__init__

    def recording(self: Trainer, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        seen.append(self)

    monkeypatch.setattr(Trainer, "__init__", recording)
    monkeypatch.setattr(Trainer, "run", lambda self: self.save())
    recipe = tiny_recipe(tmp_path / "run", model, name, reward="<given in Python>", checkpoint={"best": None})
    start(given(recipe, {"reward": digits}))
    [trainer] = seen
    # The GRPO of these runs has a β.
    assert (trainer.learner.annotator.reference is not None) is (name in ("reinforce_plus_plus", "ppo", "grpo", "dpo"))
