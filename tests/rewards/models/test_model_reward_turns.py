"""Trained models score trajectories of several turns as slow passes of transformers over one sequence do."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from conversations import MESSAGES, cut_off, group_of, ids_of, in_one_sample, in_two_samples
from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.models.scorer import Kind
from sharpen.rewards import Reward, resolve_reward
from sharpen.types import Group, Trajectory, single_turn
from tiny_models import loaded_scorer

POLICY = character_tokenizer("0123456789+-=;#ab", context=128)
OTHER = character_tokenizer("ba#;=-+9876543210", context=128)
# Each turn is its role's character, what was said, and a semicolon.
TEMPLATE = (
    "{% for m in messages %}{{ {'user': '#', 'assistant': 'a', 'tool': 'b'}[m['role']] }}{{ m['content'] }};"
    "{% endfor %}{% if add_generation_prompt %}a{% endif %}"
)
KINDS: dict[Kind, Any] = {"sequence": AutoModelForSequenceClassification, "token": AutoModelForTokenClassification}
ONE, TWO = in_one_sample(POLICY), in_two_samples(POLICY)
ALL = (ONE, TWO, cut_off(TWO), single_turn(ids_of(POLICY, "1+1=", ended=False), ids_of(POLICY, "2;3"), "2;3"))


def save_scorer(folder: Path, kind: Kind, template: str | None = None) -> Path:
    scorer = loaded_scorer(folder.with_name(f"base_{folder.name}"), kind)
    scorer.tokenizer.chat_template = template
    scorer.save(folder)
    return folder


def reward_of(path: Path, kind: Kind, policy: Any = POLICY, **settings: Any) -> Reward:
    name = {"sequence": "reward_model", "token": "process_reward_model"}[kind]
    steps = {"separator": ";"} if kind == "token" else {}
    reward = resolve_reward({"name": name, "path": str(path), **steps, **settings})
    reward.use_tokenizer(policy)
    return reward


def logits(folder: Path, kind: Kind, ids: tuple[int, ...]) -> torch.Tensor:
    """[tokens] of one sequence, alone and whole: a score, or a logit for each token."""
    model = KINDS[kind].from_pretrained(folder).eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found if kind == "sequence" else found[:, 0]


def asked(*trajectories: Trajectory, messages: bool = False) -> Group:
    group = group_of(POLICY, *trajectories)
    said = ({"role": "user", "content": "1+1="},) if messages else ()
    return replace(group, prompt=replace(group.prompt, messages=said))


@pytest.mark.parametrize("batch_tokens", [1, 30, 8192])
def test_an_outcome_is_read_at_the_end_of_the_last_sample(tmp_path: Path, batch_tokens: int) -> None:
    folder = save_scorer(tmp_path / "rm", "sequence")
    (scores,) = reward_of(folder, "sequence", batch_tokens=batch_tokens).score([asked(*ALL)])
    sequences = [
        (*ids_of(POLICY, "1+1=1+1"), *ids_of(POLICY, "=2", ended=False), *ids_of(POLICY, "2;3")),
        ids_of(POLICY, "#=22;3"),
        ids_of(POLICY, "#=22;3", ended=False),
        ids_of(POLICY, "1+1=2;3"),
    ]
    expected = [logits(folder, "sequence", ids).item() for ids in sequences]
    assert len({round(value, 3) for value in expected}) == 4
    assert [score.total for score in scores] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_outcome_is_not_read_at_a_tools_reply(tmp_path: Path) -> None:
    """Out of turns: the sample goes on after the model's last answer, and is read at its end."""
    folder = save_scorer(tmp_path / "rm", "sequence")
    last = ONE.last
    cut = replace(
        last, token_ids=last.token_ids[:6], loss_mask=last.loss_mask[:6], logprobs=(), versions=last.versions[:6]
    )
    replied = replace(ONE, samples=(cut,), messages=MESSAGES[:2])
    ((score,),) = reward_of(folder, "sequence").score([asked(replied)])
    expected = logits(folder, "sequence", ids_of(POLICY, "1+1=1+1")).item()
    assert score.total == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_steps_are_those_of_the_last_answer(tmp_path: Path, batch_tokens: int) -> None:
    """2; and 3 with the end: at 11 and 13 of the one sample's sequence, at 4 and 6 of the second sample's."""
    folder = save_scorer(tmp_path / "prm", "token")
    (scores,) = reward_of(folder, "token", batch_tokens=batch_tokens).score([asked(ONE, TWO)])
    whole = (*ids_of(POLICY, "1+1=1+1"), *ids_of(POLICY, "=2", ended=False), *ids_of(POLICY, "2;3"))
    read = [logits(folder, "token", whole)[[11, 13]], logits(folder, "token", ids_of(POLICY, "#=22;3"))[[4, 6]]]
    places = [[(7, 0), (9, 0)], [(1, 1), (3, 1)]]
    for score, values, of_score in zip(scores, read, places, strict=True):
        expected = [1 / (1 + math.exp(-value)) for value in values.tolist()]
        assert [(step.position, step.sample) for step in score.steps] == of_score
        assert [step.value for step in score.steps] == pytest.approx(expected, rel=1e-4)
        assert score.total == pytest.approx(min(expected), rel=1e-4)


RENDERED = "#1+1=;a1+1;b=2;a2;3;"


def test_an_own_template_reads_what_was_said(tmp_path: Path) -> None:
    folder = save_scorer(tmp_path / "rm", "sequence", TEMPLATE)
    out_of_turns = replace(ONE, messages=MESSAGES[:2])
    (scores,) = reward_of(folder, "sequence").score([asked(ONE, TWO, ALL[3], out_of_turns, messages=True)])
    # What a tool says after the model's last answer is not read.
    texts = [RENDERED, RENDERED, "#1+1=;a2;3;", "#1+1=;a1+1;"]
    expected = [logits(folder, "sequence", ids_of(POLICY, text, ended=False)).item() for text in texts]
    assert len({round(value, 3) for value in expected}) == 3
    assert [score.total for score in scores] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_steps_are_found_in_an_own_template(tmp_path: Path) -> None:
    """The last answer is at 16 to 18 of the rendered text; its last step is read at the ; that ends the turn."""
    folder = save_scorer(tmp_path / "prm", "token", TEMPLATE)
    (scores,) = reward_of(folder, "token").score([asked(ONE, TWO, messages=True)])
    assert RENDERED[16:20] == "2;3;"
    own = logits(folder, "token", ids_of(POLICY, RENDERED, ended=False))[[17, 19]].tolist()
    values = pytest.approx([1 / (1 + math.exp(-value)) for value in own], rel=1e-4)
    for score, places in zip(scores, [[(7, 0), (9, 0)], [(1, 1), (3, 1)]], strict=True):
        assert [step.value for step in score.steps] == values
        assert [(step.position, step.sample) for step in score.steps] == places


def test_another_vocabulary_needs_the_scorers_template(tmp_path: Path) -> None:
    bare, chat = save_scorer(tmp_path / "rm", "sequence"), save_scorer(tmp_path / "chat", "sequence", TEMPLATE)
    one, two = in_one_sample(OTHER), in_two_samples(OTHER)
    for trajectory in (one, two):
        with pytest.raises(RewardError, match="it can read a conversation of several turns only through its own chat"):
            reward_of(bare, "sequence", OTHER).score([asked(trajectory)])
    (scores,) = reward_of(chat, "sequence", OTHER).score([asked(one, two, messages=True)])
    expected = logits(chat, "sequence", ids_of(POLICY, RENDERED, ended=False)).item()
    assert [score.total for score in scores] == pytest.approx([expected] * 2, rel=1e-4, abs=1e-5)
