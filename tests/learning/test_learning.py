"""Every method, from one SFT checkpoint, gets better on held-out problems at what it optimises.

A model of 0.2 M parameters has learned sums of three one-digit numbers from demonstrations of which 40 % guess and
20 % of the steps of the others are wrong. An answer is right when its result is right and its steps are shown. Better
means: the 95 % interval after training lies wholly above the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

import sharpen
from sharpen.data.tasks import resolve_task
from sharpen.data.tasks.arithmetic import ALPHABET, shows_work, step_rewards
from sharpen.launch.run import Run
from sharpen.methods import METHODS
from sharpen.models.character_model import create_character_model
from sharpen.models.policy import load_policy
from sharpen.rewards.steps import StepReward
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.types import Prompt

TASK = "arithmetic?terms=3&digits=1&held_out_size=200&demonstration_size=20000"
FLAWED = f"{TASK}&guess_share=0.4&wrong_step_share=0.2"
OF_PAIRS: dict[str, Any] = {"rollout": {}, "evaluation": {"every": 1000, "prompts": 200}}
"""For reward models, which write nothing."""
MEASURED = {"every": 1000, "prompts": 200, "n": 4}


def right_with_work(completion: str, answer: str) -> float:
    return float(completion.rpartition("#")[2] == answer and shows_work(completion))


def right_steps(completion: str, prompt: str, answer: str) -> Sequence[tuple[int, float]]:
    """The reward of each step; a guess is a step that was not shown."""
    if completion.startswith("#"):
        return [(len(completion), 0.0)]
    return step_rewards(completion, prompt=prompt, answer=answer)


@pytest.fixture(scope="session")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that all start from."""
    folder = tmp_path_factory.mktemp("learning")
    model = create_character_model(
        folder / "model", alphabet=ALPHABET, hidden=64, intermediate=224, layers=3, heads=4, context=64
    )
    return sharpen.train(
        model,
        "sft",
        FLAWED,
        run=folder / "sft",
        quiet=True,
        optimizer={
            "learning_rate": 4e-3,
            "betas": [0.9, 0.95],
            "weight_decay": 0.01,
            "warmup_steps": 20,
            "schedule": "cosine",
        },
        training={"steps": 600, "prompts_per_step": 64},
    ).model


@pytest.fixture(scope="session")
def answers(sft: Path) -> list[dict[str, Any]]:
    """Pairs of a right and a wrong answer of the SFT model."""
    policy = load_policy(sft, device="cpu")
    rows = list(resolve_task(TASK).train_rows())[:1000]
    prompts = [Prompt(r["prompt"], tuple(policy.tokenizer(r["prompt"])["input_ids"]), r["prompt"], r) for r in rows]
    draws = [range(8 * i, 8 * i + 8) for i in range(len(prompts))]
    pairs: list[dict[str, Any]] = []
    for row, group in zip(rows, generate(LocalEngine(policy), prompts, draws, Sampling(24), seed=1), strict=True):
        texts = {c.text for c in group}
        right = {text for text in texts if right_with_work(text, row["answer"])}
        for good, bad in zip(sorted(right), sorted(texts - right), strict=False):
            pairs.append({**row, "chosen": good, "rejected": bad})
    return pairs


def measures(run: Run, name: str) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """The measure before and after with its interval."""
    rows = [row for row in run.metric_rows() if f"held_out/{name}" in row]
    before, after = (
        {key: row[f"held_out/{name}{suffix}"] for key, suffix in (("mean", ""), ("low", "_low"), ("high", "_high"))}
        for row in (rows[0], rows[-1])
    )
    return before, after


def assert_better(run: Run, name: str = "pass@1", by: float = 0.0) -> None:
    before, after = measures(run, name)
    assert after["low"] > before["high"] + by, (before, after)


def learn(model: Path, method: Any, data: Any, folder: Path, rate: float, **settings: Any) -> Run:
    settings = {"rollout": {"max_new_tokens": 24}, "evaluation": MEASURED, **settings}
    return sharpen.train(
        model, method, data, run=folder / "run", quiet=True, optimizer={"learning_rate": rate}, **settings
    )


STEPS = {"steps": 15, "prompts_per_step": 32}
MANY_PROMPTS = {"steps": 12, "prompts_per_step": 256}
RULED: dict[str, tuple[Any, float, dict[str, Any]]] = {
    "rft": ({"name": "rft", "prompts": 400}, 1e-3, {"steps": 25, "prompts_per_step": 64}),
    "online_rft": ({"name": "online_rft"}, 5e-4, {"steps": 60, "prompts_per_step": 32}),
    "reinforce": ({"name": "reinforce", "baseline": "group_mean"}, 3e-4, {"steps": 15, "prompts_per_step": 64}),
    "rloo": ({"name": "rloo"}, 3e-4, {"steps": 15, "prompts_per_step": 64}),
    "reinforce_plus_plus": ({"name": "reinforce_plus_plus", "beta": 0.01}, 3e-4, MANY_PROMPTS),
    "ppo": ({"name": "ppo", "lam": 1.0, "minibatches": 2, "critic": "shared"}, 3e-4, MANY_PROMPTS),
    "grpo": ({"name": "grpo", "beta": 0.01}, 3e-4, STEPS),
    "dr_grpo": ({"name": "dr_grpo"}, 3e-4, STEPS),
    "dapo": ({"name": "dapo"}, 3e-4, STEPS),
    "gspo": ({"name": "gspo"}, 3e-4, STEPS),
    "cispo": ({"name": "cispo"}, 3e-4, STEPS),
}


@pytest.mark.parametrize("name", RULED)
def test_a_method_that_follows_a_rule_gives_more_right_answers(name: str, sft: Path, tmp_path: Path) -> None:
    method, rate, training = RULED[name]
    assert_better(learn(sft, method, TASK, tmp_path, rate, training=training, reward=right_with_work))


def test_sft_on_demonstrations_without_flaws(sft: Path, tmp_path: Path) -> None:
    data = f"{TASK}&guess_share=0&wrong_step_share=0"
    training = {"steps": 30, "prompts_per_step": 64}
    assert_better(learn(sft, "sft", data, tmp_path, 1e-3, training=training, reward=right_with_work))


@pytest.mark.parametrize("supervision", ["process", "own_step"])
def test_grpo_with_a_verifier_of_steps_gives_more_right_answers(supervision: str, sft: Path, tmp_path: Path) -> None:
    method = {"name": "grpo", "supervision": supervision}
    reward = StepReward(right_steps, total="min")
    assert_better(learn(sft, method, TASK, tmp_path, 3e-4, training=STEPS, reward=reward))


def test_dpo_on_right_and_wrong_answers(sft: Path, answers: list[dict[str, Any]], tmp_path: Path) -> None:
    held_out = resolve_task(TASK).held_out_rows()
    run = learn(
        sft,
        {"name": "dpo"},
        answers,
        tmp_path,
        1e-4,
        held_out=held_out,
        reward=right_with_work,
        training={"steps": 30, "prompts_per_step": 32},
    )
    assert_better(run)


def test_a_reward_model_and_ppo_that_follows_it(sft: Path, tmp_path: Path) -> None:
    """A reward model tells right from wrong on held-out pairs, and PPO with a critic that begins as it raises its score
    on held-out problems. (Not the share of right answers: this reward model mostly sees whether steps are shown.)"""
    judged = learn(
        sft,
        "reward_model",
        f"{TASK}&preference_size=8000",
        tmp_path / "judge",
        1e-3,
        training={"steps": 100, "prompts_per_step": 64},
        **OF_PAIRS,
    )
    before, after = measures(judged, "pair_accuracy")
    assert before["mean"] == 0.0  # all scores are 0, so no pair is won
    assert after["low"] > 0.7
    run = learn(
        sft,
        {"name": "ppo", "lam": 1.0, "minibatches": 2, "beta": 0.01, "critic_learning_rate_ratio": 2.0},
        TASK,
        tmp_path / "ppo",
        3e-4,
        reward={"name": "reward_model", "path": str(judged.path)},
        training=MANY_PROMPTS,
    )
    assert_better(run, "reward")
    first, last = run.metric_rows()[1], run.metric_rows()[-1]
    assert last["critic/loss"] < 0.3 * first["critic/loss"]
    # Its mean over the steps: once most answers score alike, a single step's variance is a few outliers'.
    first, *later = (row["value/explained_variance"] for row in run.metric_rows()[1:])
    assert mean(later) > first + 0.1


def test_a_process_reward_model(sft: Path, tmp_path: Path) -> None:
    training = {"steps": 200, "prompts_per_step": 64}
    run = learn(sft, "process_reward_model", TASK, tmp_path, 1e-3, training=training, **OF_PAIRS)
    before, after = measures(run, "step_accuracy")
    assert after["low"] > before["high"]
    # To call every step wrong, the commoner label here, is right for 58 % of them.
    assert after["low"] > 0.6


def test_gspo_trains_a_mixture_of_experts_without_replaying_its_routing(sft: Path, tmp_path: Path) -> None:
    """The same model with its feed-forward layers as four experts each, of which two are active per token."""
    experts = mixture_of(sft, tmp_path / "experts")
    run = learn(experts, {"name": "gspo"}, TASK, tmp_path, 3e-4, training=STEPS, reward=right_with_work)
    assert_better(run)


def mixture_of(dense: Path, folder: Path) -> Path:
    """A Mixtral whose experts are a Llama's feed-forward layers, slightly moved, behind a random router."""
    policy = load_policy(dense, device="cpu")
    llama: Any = policy.model
    shared = {k: v for k, v in llama.config.to_dict().items() if k not in ("model_type", "architectures", "head_dim")}
    config = MixtralConfig(**shared, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    torch.manual_seed(0)
    mixture: Any = MixtralForCausalLM(config)
    weights = dict(llama.state_dict())
    with torch.no_grad():
        for name, parameter in mixture.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
            elif "experts" in name:
                layer = name.partition(".mlp.")[0]
                parts = (
                    [weights[f"{layer}.mlp.down_proj.weight"]]
                    if "down" in name
                    else [weights[f"{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
                )
                parameter.copy_(torch.cat(parts).expand_as(parameter) * (1 + 0.02 * torch.randn(parameter.shape)))
    mixture.generation_config = llama.generation_config
    mixture.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


def test_every_method_is_here() -> None:
    others = {"sft", "dpo", "reward_model", "process_reward_model"}
    assert set(METHODS) == set(RULED) | others
