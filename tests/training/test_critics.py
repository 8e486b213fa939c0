"""A critic beside the policy, or as a head on it: where it begins, how fast it learns, what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sharpen.errors import ModelError
from sharpen.launch.run import Run, start
from sharpen.models.scorer import load_scorer
from tiny_models import loaded_scorer
from tiny_runs import digits, given, tiny_recipe, tiny_start_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("critics") / "model")


def run_of(path: Path, model: Path, reward: Any = digits, *, steps: int = 2, **method: Any) -> Run:
    named = isinstance(reward, dict)
    recipe = tiny_recipe(
        path,
        model,
        "ppo",
        method={"beta": 0.0, **method},
        reward=reward if named else "<given in Python>",
        training={"steps": steps},
        optimizer={"warmup_steps": 0, "schedule": "constant", "learning_rate": 0.01, "weight_decay": 0.0},
        evaluation={"every": 0},
        checkpoint={"every": 1, "keep": 9, "best": None},
    )
    return start(recipe if named else given(recipe, {"reward": reward}))


def weights(path: Path) -> dict[str, Tensor]:
    return load_file(path / "model.safetensors")


def critic_of(run: Run, step: int) -> dict[str, Tensor]:
    return weights(run.path / "checkpoints" / f"step_{step:06d}" / "critic")


def test_an_own_critic_begins_as_the_initial_policy_with_a_head_that_says_0(model: Path, tmp_path: Path) -> None:
    """At a learning rate of next to nothing it stays what it was."""
    run = run_of(tmp_path / "run", model, steps=1, critic_learning_rate_ratio=1e-12)
    critic, begin = critic_of(run, 1), weights(model)
    assert set(critic) == {*(n for n in begin if n != "lm_head.weight"), "score.weight", "score.bias"}
    for name, tensor in critic.items():
        expected = begin.get(name, torch.zeros_like(tensor))
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-12)
    assert run.metric_rows()[0]["value/mean"] == pytest.approx(0.0, abs=1e-9)


def test_an_own_critic_begins_as_what_the_settings_name(model: Path, tmp_path: Path) -> None:
    other = tiny_start_model(tmp_path / "other")
    scorer = load_scorer(other, kind="token", device="cpu")
    with torch.no_grad():
        scorer.head.weight.fill_(0.3)
        scorer.head.bias.fill_(0.25)
    scorer.save(tmp_path / "scorer")
    run = run_of(
        tmp_path / "run", model, steps=1, critic_path=str(tmp_path / "scorer"), critic_learning_rate_ratio=1e-12
    )
    critic = critic_of(run, 1)
    for name, expected in weights(tmp_path / "scorer").items():
        torch.testing.assert_close(critic[name], expected, rtol=0, atol=1e-9)
    assert run.metric_rows()[0]["value/mean"] != 0.0


def test_an_own_critic_begins_as_the_reward_model_that_completions_are_scored_by(model: Path, tmp_path: Path) -> None:
    scorer = load_scorer(model, kind="sequence", device="cpu")
    with torch.no_grad():
        scorer.head.weight.fill_(0.3)
        scorer.model.model.embed_tokens.weight.mul_(1.5)
    scorer.save(tmp_path / "scorer")
    reward = {"name": "reward_model", "path": str(tmp_path / "scorer")}
    run = run_of(tmp_path / "run", model, reward, steps=1, critic_learning_rate_ratio=1e-12)
    critic = critic_of(run, 1)
    for name, expected in weights(tmp_path / "scorer").items():
        torch.testing.assert_close(critic[name], expected, rtol=0, atol=1e-9)


def test_a_reward_model_that_is_only_logged_is_not_what_a_critic_begins_as(model: Path, tmp_path: Path) -> None:
    scorer = load_scorer(model, kind="sequence", device="cpu")
    with torch.no_grad():
        scorer.head.weight.fill_(0.3)
    scorer.save(tmp_path / "scorer")
    reward = [{"name": "reward_model", "path": str(tmp_path / "scorer"), "weight": 0}, {"name": "tiny_runs:digits"}]
    run = run_of(tmp_path / "run", model, reward, steps=1, critic_learning_rate_ratio=1e-12)
    torch.testing.assert_close(critic_of(run, 1)["score.weight"], torch.zeros(1, 16), rtol=0, atol=1e-9)


def test_the_critic_has_a_learning_rate_of_its_own(model: Path, tmp_path: Path) -> None:
    """The first step of Adam moves a weight by the learning rate where its gradient is not tiny."""
    run = run_of(tmp_path / "run", model, steps=1, critic_learning_rate_ratio=0.1, minibatches=1)

    def furthest(after: dict[str, Tensor]) -> float:
        begin = weights(model)
        return max((tensor - begin[n]).abs().max().item() for n, tensor in after.items() if n in begin)

    assert furthest(weights(run.model)) == pytest.approx(0.01, rel=0.01)
    assert (critic_of(run, 1)["score.weight"]).abs().max().item() == pytest.approx(0.001, rel=0.01)


def test_what_is_saved_of_an_own_critic_is_a_scorer_with_an_optimizer(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model)
    names = {str(f.relative_to(run.model)) for f in run.model.rglob("*.safetensors")}
    assert names == {
        "model.safetensors",
        "critic/model.safetensors",
        "trainer/optimizer.safetensors",
        "trainer/optimizer_critic.safetensors",
    }
    saved = load_scorer(run.model / "critic", kind="token", device="cpu")
    assert torch.equal(saved.head.weight, critic_of(run, 2)["score.weight"])
    rows = run.metric_rows()
    assert all(row["critic/loss"] > 0 and row["critic/grad_norm"] > 0 for row in rows)
    assert rows[1]["value/mean"] != 0.0


def test_a_shared_critic_is_a_head_in_a_file_beside_the_policy(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, critic="shared")
    names = {str(f.relative_to(run.model)) for f in run.model.rglob("*.safetensors")}
    assert names == {"model.safetensors", "value_head.safetensors", "trainer/optimizer.safetensors"}
    head = load_file(run.model / "value_head.safetensors")
    assert head["weight"].abs().max() > 0
    assert all("critic/loss" not in row and "value/mean" in row for row in run.metric_rows())


def constant(value: float) -> Callable[[str], float]:
    def same(completion: str) -> float:
        return value

    return same


def test_where_no_advantage_is_left_the_policy_stays_and_the_critic_learns(model: Path, tmp_path: Path) -> None:
    """All rewards 0.7, all values 0, λ = 1: every advantage is 0.7, and whitened 0. The critic goes towards 0.7."""
    run = run_of(tmp_path / "run", model, constant(0.7), steps=1, lam=1.0)
    before, after = weights(model), weights(run.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    [row] = run.metric_rows()
    assert (row["updates/applied"], row["updates/skipped"]) == (0, 2)
    assert (row["loss"], row["grad_norm"]) == (0.0, 0.0)
    # The first update sees the whole error, ½ 0.7²; the second less.
    assert 0.1 < row["critic/loss"] < 0.245
    assert row["critic/grad_norm"] > 0
    assert critic_of(run, 1)["score.bias"].item() > 0
    state = (run.model / "trainer" / "state.json").read_text()
    assert '"policy": 0' in state
    assert '"critic": 2' in state


def test_values_learn_what_the_reward_is(model: Path, tmp_path: Path) -> None:
    rows = run_of(tmp_path / "run", model, constant(0.7), steps=15, lam=1.0, whiten_advantages=False).metric_rows()
    assert rows[0]["critic/loss"] > 0.1
    assert rows[-1]["critic/loss"] < 0.01
    assert rows[-1]["value/mean"] == pytest.approx(0.7, abs=0.1)


def test_a_scorer_for_another_vocabulary_is_no_critic(model: Path, tmp_path: Path) -> None:
    loaded_scorer(tmp_path / "other", "token").save(tmp_path / "scorer")
    with pytest.raises(ModelError, match="a critic reads the policy's tokens, but this model has others"):
        run_of(tmp_path / "run", model, steps=1, critic_path=str(tmp_path / "scorer"))
