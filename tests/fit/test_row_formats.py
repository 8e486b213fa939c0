"""Templates × formats × methods: what a row says is the same in whatever format, and for every method."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from families import FAMILIES
from family import CONVERSATIONS, Family, Rejected, said
from test_templates import format_of
from trained_tokenizers import marked, spelled
from transformers import PreTrainedTokenizerFast

from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.preferences import load_preferences
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.data.steps import load_steps
from sharpen.types import Group

HI, YES, NO = said("user", "hi"), said("assistant", "yes"), said("assistant", "no")
ANSWERED = [name for name, family in FAMILIES.items() if isinstance(family.expected["one"], str)]
CALLING = [
    (name, conversation)
    for name, family in FAMILIES.items()
    for conversation in ("tools", "calls")
    if not isinstance(family.expected.get(conversation, Rejected("")), Rejected)
]


def parts(text: str) -> list[dict[str, Any]]:
    """Content as a list of parts, with a key that Arrow filled in."""
    middle = len(text) // 2
    return [{"type": "text", "text": half, "image_url": None} for half in (text[:middle], text[middle:])]


SAME = {
    "texts": ({"prompt": "hi", "completion": "yes"}, {"chat": True}),
    "a conversation for a prompt": ({"prompt": [HI], "completion": [YES]}, {}),
    "messages": ({"messages": [HI, YES]}, {}),
    "parts": ({"messages": [said("user", parts("hi")), said("assistant", parts("yes"))]}, {}),
    "nulls": ({"messages": [{**HI, "tool_calls": None, "name": None}, {**YES, "tool_calls": None}]}, {}),
}
PAIRS = {
    "texts": ({"prompt": "hi", "chosen": "yes", "rejected": "no"}, {"chat": True}),
    "messages": ({"prompt": [HI], "chosen": [YES], "rejected": [NO]}, {}),
    "whole conversations": ({"chosen": [HI, YES], "rejected": [HI, NO]}, {}),
    "a text and whole conversations": ({"prompt": "hi", "chosen": [HI, YES], "rejected": [HI, NO]}, {}),
    "a ranking": ({"prompt": [HI], "completions": [[YES], [NO]], "scores": [1, 0]}, {}),
}


def one(name: str) -> str:
    expected = FAMILIES[name].expected["one"]
    assert isinstance(expected, str)
    return expected


def answering(expected: str, answer: str) -> str:
    """The conversation with another answer than "yes"."""
    before, _, after = expected.partition("«")
    return f"{before}«{after.replace('yes', answer, 1)}"


def read(load: Any, row: dict[str, Any], family: Family, tokenizer: PreTrainedTokenizerFast, **options: Any) -> Any:
    of_load = {name: options.pop(name) for name in ("separator", "max_new_tokens") if name in options}
    (item,) = load(read_rows([row], name="talk"), format_of(family, tokenizer, **options), **of_load).items
    return item


def texts_of(group: Group, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [marked(tokenizer, sample) for trajectory in group.trajectories for sample in trajectory.samples]


@pytest.mark.parametrize("way", SAME)
@pytest.mark.parametrize("name", ANSWERED)
def test_demonstrations(name: str, way: str) -> None:
    family, (row, options) = FAMILIES[name], SAME[way]
    tokenizer = family.tokenizer(name)
    group = read(load_demonstrations, row, family, tokenizer, **options)
    assert texts_of(group, tokenizer) == [one(name)]


@pytest.mark.parametrize("name", ANSWERED)
def test_the_system_message_of_the_settings_is_one_of_the_row(name: str) -> None:
    family = FAMILIES[name]
    expected = family.expected["system"]
    if isinstance(expected, Rejected):
        pytest.skip("its template knows no system message")
    tokenizer = family.tokenizer(name)
    group = read(load_demonstrations, CONVERSATIONS["one"], family, tokenizer, system="be nice")
    assert texts_of(group, tokenizer) == [expected]


@pytest.mark.parametrize("way", PAIRS)
@pytest.mark.parametrize("name", ANSWERED)
def test_preferences(name: str, way: str) -> None:
    family, (row, options) = FAMILIES[name], PAIRS[way]
    tokenizer = family.tokenizer(name)
    group = read(load_preferences, row, family, tokenizer, **options)
    assert texts_of(group, tokenizer) == [one(name), answering(one(name), "no")]
    assert [score.total for score in group.scores or ()] == [1.0, 0.0]


@pytest.mark.parametrize("way", ["texts", "messages"])
@pytest.mark.parametrize("name", ANSWERED)
def test_marked_steps(name: str, way: str) -> None:
    family = FAMILIES[name]
    tokenizer = family.tokenizer(name)
    row = {"prompt": "hi" if way == "texts" else [HI], "steps": ["ok;", "yes"], "labels": [1, 0]}
    group = read(load_steps, row, family, tokenizer, separator=None, chat=way == "texts")
    assert texts_of(group, tokenizer) == [answering(one(name), "ok;yes")]
    (trajectory,), (score,) = group.trajectories, group.scores
    sample = trajectory.last
    ids = (*sample.prefix_ids, *sample.token_ids)
    first, last = (len(sample.prefix_ids) + step.position for step in score.steps)
    assert b"".join(spelled(tokenizer, ids)[: first + 1]).endswith(b"ok;")
    assert last == len(ids) - 1
    assert [step.value for step in score.steps] == [1.0, 0.0]


@pytest.mark.parametrize("way", ["texts", "messages"])
@pytest.mark.parametrize("name", FAMILIES)
def test_prompts(name: str, way: str) -> None:
    """A model is asked exactly what demonstrations put before its answer."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer(name)
    row = {"prompt": "hi"} if way == "texts" else {"messages": [HI]}
    prompt = read(load_prompts, row, family, tokenizer, max_new_tokens=8, chat=way == "texts")
    known = (family.expected[c] for c in ("one", "thinking") if not isinstance(family.expected[c], Rejected))
    expected = next(known)
    before = (expected if isinstance(expected, str) else expected[0]).partition("«")[0]
    assert b"".join(spelled(tokenizer, prompt.token_ids)).decode() == before


@pytest.mark.parametrize(("name", "conversation"), CALLING)
def test_arguments_of_calls_as_json_text_are_objects(name: str, conversation: str) -> None:
    family = FAMILIES[name]
    row = deepcopy(CONVERSATIONS[conversation])
    function = row["messages"][1]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"])
    if "tools" in row:
        row["tools"] = json.dumps(row["tools"])
    tokenizer = family.tokenizer(name)
    expected = family.expected[conversation]
    found = texts_of(read(load_demonstrations, row, family, tokenizer), tokenizer)
    assert found == ([expected] if isinstance(expected, str) else [*expected])
