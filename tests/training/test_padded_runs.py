"""Runs of scorers whose start model pads with what texts end with: the saved numbers, resumed runs, critics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.launch.run import resume, start
from sharpen.models.load import load_tokenizer
from sharpen.models.merge import merge
from sharpen.rewards import resolve_reward
from sharpen.types import Group, Prompt, Score, single_turn
from tiny_models import without_padding
from tiny_runs import Raising, assert_left_the_same, left_behind, reward_file, tiny_recipe, tiny_start_model

STEPS = 4
PROMPT = "1+2="
ANSWERS = ["3", "1+2=3#3", "", "#4"]
MODELS: dict[str, dict[str, Any]] = {
    "pads with the end": {},
    "does not say so in its configuration": {"config_pad": None},
    "has only an end": {"pad_token": None, "unk_token": None, "config_pad": None},
}


class PowerCut(BaseException):
    """Nothing catches it."""


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


def model_of(path: Path, name: str = "pads with the end") -> Path:
    return without_padding(tiny_start_model(path), ALPHABET, **MODELS[name])


def recipe_of(path: Path, model: Path, name: str, /, **changes: Any) -> Any:
    settings: dict[str, Any] = {"training": {"steps": STEPS}, "evaluation": {"every": 0}, "checkpoint": {"best": None}}
    return tiny_recipe(path, model, name, **{**settings, **changes})


def scores(folder: Path, name: str, policy: Path, **settings: Any) -> list[Score]:
    reward = resolve_reward({"name": name, "path": str(folder), "device": "cpu", **settings})
    tokenizer = load_tokenizer(str(policy), trust_remote_code=False)
    reward.use_tokenizer(tokenizer)
    prompt_ids = tuple(tokenizer(PROMPT)["input_ids"])
    completions = []
    for answer in ANSWERS:
        ids = (*tokenizer(answer)["input_ids"], tokenizer.eos_token_id)
        completions.append(single_turn(prompt_ids, ids, answer))
    prompt = Prompt(PROMPT, prompt_ids, PROMPT, {"prompt": PROMPT})
    (found,) = reward.score([Group(prompt, tuple(completions))])
    return list(found)


def padded(folder: Path, auto: Any, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of all answers in one batch, by transformers alone, and which of its tokens are there."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [f"{PROMPT}{answer}<eos>" for answer in ANSWERS]
    batch = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    with torch.no_grad():
        return auto.from_pretrained(folder).eval()(**batch).logits[..., 0], batch["attention_mask"].bool()


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
def test_a_trained_reward_model_scores_the_same_in_transformers(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    model = model_of(tmp_path / "model")
    settings = {"path": str(model), "device": "cpu", "lora": lora}
    optimizer = {"learning_rate": 0.02, "warmup_steps": 0}
    run = start(recipe_of(tmp_path / "run", model, "reward_model", model=settings, optimizer=optimizer))
    here = [score.total for score in scores(run.model, "reward_model", model)]
    assert len({round(score or 0.0, 5) for score in here}) == len(ANSWERS)
    whole = run.model if lora is None else merge(run.model, tmp_path / "merged")
    for side in ("right", "left"):
        theirs, _ = padded(whole, AutoModelForSequenceClassification, side)
        assert theirs.tolist() == pytest.approx(here, rel=1e-5, abs=1e-6)


def test_a_trained_process_reward_model_scores_the_same_in_transformers(tmp_path: Path) -> None:
    """The last step of an answer ends at the end-of-sequence token, the one before at its #."""
    model = model_of(tmp_path / "model")
    optimizer = {"learning_rate": 0.02, "warmup_steps": 0}
    run = start(recipe_of(tmp_path / "run", model, "process_reward_model", optimizer=optimizer))
    here = scores(run.model, "process_reward_model", model, separator="#")
    assert [len(score.steps) for score in here] == [1, 2, 1, 1]
    for side in ("right", "left"):
        logits, there = padded(run.model, AutoModelForTokenClassification, side)
        for score, row, mask in zip(here, logits, there, strict=True):
            completion = row[mask].sigmoid()[len(PROMPT) :].tolist()
            for step in score.steps:
                assert step.value == pytest.approx(completion[step.position], rel=1e-5)


@pytest.mark.parametrize("padding", MODELS)
@pytest.mark.parametrize("name", ["reward_model", "process_reward_model", "ppo"])
def test_a_resumed_run_ends_as_if_it_had_not_been_cut_off(name: str, padding: str, tmp_path: Path) -> None:
    """The end-of-sequence token is learnt whichever token pads: transformers gives none to the one that pads."""
    model = model_of(tmp_path / "model", padding)
    rewarded = {"reward": reward_file(tmp_path / "reward.py")} if name == "ppo" else {}
    assert start(recipe_of(tmp_path / "whole", model, name, **rewarded)).finished
    whole = left_behind(tmp_path / "whole", STEPS)
    assert all(row["grad_norm"] > 0 for row in whole["metrics"] if row["step"])
    with pytest.raises(PowerCut):
        start(recipe_of(tmp_path / "cut", model, name, **rewarded), loggers=[cut_off(3)])
    assert resume(tmp_path / "cut").finished
    assert_left_the_same(tmp_path / "cut", whole, STEPS)


def test_a_critic_begins_as_a_reward_model_with_a_token_more(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model")
    judge = start(recipe_of(tmp_path / "judge", model, "reward_model"))
    reward = {"name": "reward_model", "path": str(judge.model), "device": "cpu"}
    run = start(recipe_of(tmp_path / "run", model, "ppo", reward=reward, training={"steps": 1}))
    assert len(AutoTokenizer.from_pretrained(run.model / "critic")) == len(AutoTokenizer.from_pretrained(model)) + 1
    assert run.metric_rows()[-1]["reward/reward_model"] == pytest.approx(run.metric_rows()[-1]["reward/mean"])
