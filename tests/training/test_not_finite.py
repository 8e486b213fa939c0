"""A step that meets NaN or infinity ends the run by a named error, with a checkpoint of the step before."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.errors import ChangedError, NonFiniteError
from sharpen.launch.run import resume, start
from sharpen.runs.folder import read_metrics
from sharpen.training.learner import Learner
from sharpen.training.trainer import Trainer
from tiny_runs import TASK, assert_left_the_same, left_behind, reward_file, tiny_recipe, tiny_start_model

NO_BEST = {"evaluation": {"every": 0}, "checkpoint": {"every": 2, "best": None}}
ONE_UPDATE = {"method": {"updates_per_rollout": 1, "minibatches": 1, "beta": 0.0}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("not_finite") / "model")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reward_file(tmp_path_factory.mktemp("reward") / "reward.py")


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[Learner], None]) -> None:
    """Calls ``action`` in this step, after its completions are sampled."""
    learn = Learner.learn

    def acting(self: Learner, groups: Any, now: int, mixed: Any = (), **options: Any) -> Any:
        if now == step:
            action(self)
        return learn(self, groups, now, mixed, **options)

    monkeypatch.setattr(Learner, "learn", acting)


def stopped_at(path: Path, recipe: Any, step: int) -> dict[str, Any]:
    """What a run leaves that was stopped after this step."""
    with pytest.MonkeyPatch.context() as patched:
        train_step = Trainer.train_step

        def stopping(self: Trainer) -> Any:
            self.stop_requested = self.step == step
            return train_step(self)

        patched.setattr(Trainer, "train_step", stopping)
        start(recipe)
    return left_behind(path, step)


def but_for_state(left: dict[str, Any]) -> dict[str, Any]:
    """What a run leaves, without the state, which says which reward it has."""
    return {name: value for name, value in left.items() if name != "trainer/state.json"}


def names(path: Path) -> list[str]:
    return sorted(c.name for c in (path / "checkpoints").glob("step_*"))


EXTREME = """
calls = 0

def digits(completion, **row):
    global calls
    calls += 1
    return (1.6e308, 1.7e308)[calls % 2] if calls >= AT else sum(c.isdigit() for c in completion) / 8
"""


def extreme(path: Path, at: int) -> str:
    """``digits``, but from call ``at`` on so large that the sum of two is more than a float holds."""
    path.write_text(EXTREME.replace("AT", str(at)))
    return f"{path}:digits"


@pytest.mark.parametrize("changes", [ONE_UPDATE, {}], ids=["one update a step", "several"])
def test_an_extremely_large_reward(changes: dict[str, Any], model: Path, reward: str, tmp_path: Path) -> None:
    """16 calls a step: it is so in step 4. The step before has no checkpoint of its own otherwise."""
    whole, stopped, path = tmp_path / "whole", tmp_path / "stopped", tmp_path / "run"
    start(tiny_recipe(whole, model, "grpo", reward=reward, **NO_BEST, **changes))
    expected = stopped_at(stopped, tiny_recipe(stopped, model, "grpo", reward=reward, **NO_BEST, **changes), 3)
    wrong = extreme(tmp_path / "reward.py", 16 * 3 + 1)
    with pytest.raises(NonFiniteError) as raised:
        start(tiny_recipe(path, model, "grpo", reward=wrong, **NO_BEST, **changes))
    assert str(raised.value) == (
        "step 4: the advantages, computed from the rewards, are NaN or infinite. Lower optimizer.learning_rate, or "
        f"look for extremely large rewards; the latest checkpoint is {path / 'checkpoints' / 'step_000003'}; "
        f"to continue: sharpen run --resume {path}"
    )
    assert raised.value.step == 4
    assert_left_the_same(path, but_for_state(expected), 3)
    assert names(path) == ["step_000002", "step_000003"]
    reward_file(tmp_path / "reward.py")  # it is mended
    with pytest.raises(ChangedError, match=r"`reward` has other source code \(.*reward\.py:digits: reward\.py\)"):
        resume(path)
    assert resume(path, accept_changes=True).finished
    assert_left_the_same(path, but_for_state(left_behind(whole)))


def break_weights(role: Any) -> Callable[[Learner], None]:
    def breaking(learner: Learner) -> None:
        next(iter(learner.models[role].model.parameters())).data.fill_(torch.nan)

    return breaking


def break_loss(learner: Learner) -> None:
    """The terms of the loss are infinite, and NaN where their weight is 0; the gradient is neither."""
    objective = learner.objectives[0]
    terms = objective.terms

    def infinite(*arguments: Any) -> Any:
        result = terms(*arguments)
        result.loss.data.fill_(torch.inf)
        return result

    object.__setattr__(objective, "terms", infinite)


def test_an_update_that_is_applied_before_the_loss_breaks_is_gone_back_behind(
    model: Path, reward: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second of step 4's updates. With no checkpoint to go back to, all is repeated from the beginning."""
    path, stopped = tmp_path / "run", tmp_path / "stopped"
    changes: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"every": 0, "best": None}}
    expected = stopped_at(stopped, tiny_recipe(stopped, model, "grpo", reward=reward, **changes), 3)
    learn, forward_backward = Learner.learn, Learner.forward_backward
    updates = 0

    def learning(self: Learner, groups: Any, step: int, *mixed: Any, **options: Any) -> Any:
        nonlocal updates
        updates = 0 if step == 4 else -100
        return learn(self, groups, step, *mixed, **options)

    def breaking(self: Learner, *arguments: Any, **options: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == 2:
            break_weights("policy")(self)
        return forward_backward(self, *arguments, **options)

    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", learning)
        patched.setattr(Learner, "forward_backward", breaking)
        with pytest.raises(NonFiniteError, match=r"step 4: the policy's gradient norm is nan, its loss nan") as raised:
            start(tiny_recipe(path, model, "grpo", reward=reward, **changes), say=said.append)
    assert "the weights of step 3 are gone: repeating the steps since the latest checkpoint to save them" in said
    assert f"the latest checkpoint is {path / 'checkpoints' / 'step_000003'}" in str(raised.value)
    assert_left_the_same(path, expected, 3)


@pytest.mark.parametrize(
    ("method", "role", "said"),
    [
        ("sft", "policy", "the policy's gradient norm is nan, its loss nan"),
        ("dpo", "policy", "the policy's gradient norm is nan, its loss nan"),
        ("ppo", "critic", "the critic's values are NaN or infinite"),
        ("reward_model", "outcome_reward_model", "the outcome_reward_model's gradient norm is nan, its loss nan"),
        ("process_reward_model", "process_reward_model", "the process_reward_model's gradient norm is nan"),
    ],
)
def test_the_error_names_step_model_and_quantity(
    method: str, role: str, said: str, model: Path, reward: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 3, break_weights(role))
    changes = NO_BEST if method in ("reward_model", "process_reward_model") else {**NO_BEST, "reward": reward}
    with pytest.raises(NonFiniteError) as raised:
        start(tiny_recipe(tmp_path / "run", model, method, **changes))
    assert str(raised.value).startswith(f"step 3: {said}")
    assert "optimizer.learning_rate" in str(raised.value)


def test_a_loss_alone_that_is_infinite(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(monkeypatch, 2, break_loss)
    with pytest.raises(NonFiniteError, match=r"^step 2: the policy's gradient norm is [\d.]+, its loss nan\."):
        start(tiny_recipe(tmp_path / "run", model, "sft", **NO_BEST))


@pytest.mark.parametrize("method", ["grpo", "sft", "reward_model"])
def test_a_learning_rate_that_is_far_too_high(method: str, model: Path, reward: str, tmp_path: Path) -> None:
    """Its first update leaves weights that nothing can be computed with: the next step meets them."""
    path = tmp_path / "run"
    recipe = tiny_recipe(
        path,
        model,
        method,
        **({"reward": reward, **ONE_UPDATE} if method == "grpo" else {}),
        optimizer={"learning_rate": 1e30, "warmup_steps": 0, "schedule": "constant"},
        evaluation={"every": 0},
        checkpoint={"every": 0, "best": None},
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    result = CliRunner().invoke(app, ["run", str(file)])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2, said
    assert "step 2: " in said
    assert f"the latest checkpoint is {path / 'checkpoints' / 'step_000001'}" in said
    assert names(path) == ["step_000001"]
    assert f"sharpen run --resume {path}" in said


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("grpo", "logits that are not numbers"),
        ("reward_model", "the outcome_reward_model's loss on held-out rows is nan"),
    ],
)
@pytest.mark.parametrize("step", [1, 3])
def test_an_evaluation_that_meets_it(
    method: str, said: str, step: int, model: Path, reward: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's own weights are at fault: those of the step before are made again. Before step 1 there are none."""
    path, stopped = tmp_path / "run", tmp_path / "stopped"
    changes = {"evaluation": {"every": 1}, "checkpoint": {"every": 0, "best": None}}
    if method == "grpo":
        changes["reward"] = reward
    expected = stopped_at(stopped, tiny_recipe(stopped, model, method, **changes), step - 1) if step > 1 else {}
    train_step = Trainer.train_step

    def breaking(self: Trainer) -> Any:
        metrics = train_step(self)
        if self.step == step:
            break_weights(self.learner.main)(self.learner)
        return metrics

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", breaking)
        with pytest.raises(NonFiniteError, match=f"^step {step}: .*{said}") as raised:
            start(tiny_recipe(path, model, method, **changes))
    if step > 1:
        assert_left_the_same(path, expected, step - 1)
    else:
        assert "there is no checkpoint yet" in str(raised.value)
        assert names(path) == []


def test_older_checkpoints_stay(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are kept, steps 2 and 4; that of step 5, which is written because step 6 failed, removes none."""
    path = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_step(patched, 6, break_loss)
        with pytest.raises(NonFiniteError):
            start(tiny_recipe(path, model, "sft", **NO_BEST))
    assert names(path) == ["step_000002", "step_000004", "step_000005"]
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4, 5]
    start(tiny_recipe(tmp_path / "whole", model, "sft", **NO_BEST))
    assert resume(path).finished
    assert_left_the_same(path, left_behind(tmp_path / "whole"))
    assert names(path) == ["step_000005", "step_000006"]


def test_a_policy_that_gives_no_numbers_cannot_be_measured(tmp_path: Path) -> None:
    broken = tiny_start_model(tmp_path / "model")
    program = (
        "import sys, torch; from safetensors.torch import load_file, save_file; f = sys.argv[1]; w = load_file(f); "
        "w['model.norm.weight'][:] = torch.nan; save_file(w, f, metadata={'format': 'pt'})"
    )
    subprocess.run([sys.executable, "-c", program, str(broken / "model.safetensors")], check=True)
    asked = ["eval", str(broken), "--task", TASK, "--n", "1", "--prompts", "1", "--max-new-tokens", "4", "--json"]
    result = CliRunner().invoke(app, asked)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{broken} gives logits that are not numbers" in " ".join(result.stderr.split())
    run = tmp_path / "run"
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(json.loads(tiny_recipe(run, broken, "grpo").model_dump_json())))
    result = CliRunner().invoke(app, ["run", str(file)])
    assert result.exit_code == 2
    assert "step 0: " in result.stderr
