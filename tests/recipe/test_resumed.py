"""Which edits of a run's recipe are ordinary, which are asked about, and which are not looked at."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from sharpen.recipe.loading import make_recipe
from sharpen.recipe.resumed import changed_since, is_ordinary, settings_to_keep
from tiny_runs import tiny_tree

SOURCES = {"sources": {"a": {"train": "a.jsonl", "share": 1}, "b": {"train": "b.jsonl"}}, "task": None}


def kept(**changes: Any) -> dict[str, Any]:
    changes = {"reward": {"name": "regex", "pattern": "a"}, **changes}
    return settings_to_keep(make_recipe(tiny_tree(Path("runs/one"), Path("models/one"), "grpo", **changes)))


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({}, {"optimizer": {"learning_rate": 1e-3}}, {"optimizer.learning_rate": True}),
        ({}, {"optimizer": {"max_grad_norm": 0.5}}, {"optimizer.max_grad_norm": True}),
        ({}, {"training": {"steps": 9}}, {"training.steps": True}),
        ({}, {"training": {"prompts_per_step": 5}}, {"training.prompts_per_step": False}),
        ({}, {"evaluation": {"every": 3}}, {"evaluation.every": True}),
        ({}, {"evaluation": {"n": 4}}, {"evaluation.n": False}),
        ({}, {"checkpoint": {"best": None}}, {"checkpoint.best": True}),
        ({}, {"checkpoint": {"every": 3, "keep": 1, "dtype": "bfloat16"}, "log": {"samples_every": 0}}, {}),
        ({}, {"method": {"beta": 0.1}}, {"method.beta": False}),
        ({}, {"method": {"kl": {"path": "models/two"}}}, {"method.kl.path": False}),
        ({}, {"rollout": {"temperature": 0.9}}, {"rollout.temperature": False}),
        ({}, {"rollout": {"engine": {"kv_gib": 2.0}}}, {"rollout.engine.kv_gib": True}),
        ({}, {"reward": {"name": "regex", "pattern": "b"}}, {"reward.pattern": False}),
        ({}, {"reward": {"name": "regex", "pattern": "a", "weight": 2}}, {"reward.weight": False}),
        ({}, {"seed": 8}, {"seed": False}),
        ({}, {"model": {"path": "models/two", "device": "auto"}}, {"model.path": True, "model.device": True}),
        ({}, {"model": {"compute_dtype": "bfloat16"}}, {"model.compute_dtype": False}),
        ({"data": SOURCES}, {"data": {**SOURCES, "columns": {"answer": "a"}}}, {"data.columns.answer": True}),
        ({"data": SOURCES}, {"data": {**SOURCES, "chat": True}}, {"data.chat": False}),
    ],
)
def test_an_edit_of_the_recipe(before: dict[str, Any], now: dict[str, Any], changed: dict[str, bool]) -> None:
    before, now = ({"evaluation": {"every": 0}, **one} if "data" in one else one for one in (before, now))
    checkpoint = {"checkpoint": {"best": None}} if "data" in before else {}
    found = changed_since(kept(**before, **checkpoint), kept(**now, **checkpoint))
    assert {path: is_ordinary(path, old, new) for path, old, new in found} == changed


def test_where_rows_are_may_change_but_not_whether_there_are_any() -> None:
    assert is_ordinary("data.train", "a.jsonl", "moved/a.jsonl")
    assert is_ordinary("data.sources.a.held_out", "a.jsonl", "moved/a.jsonl")
    assert not is_ordinary("data.held_out", None, "a.jsonl")


def test_a_setting_that_the_run_did_not_know_is_no_change_but_a_name_of_the_users_is() -> None:
    now = kept()
    older: dict[str, Any] = copy.deepcopy(now)
    del older["rollout"]["flow"], older["method"]["beta"], older["checkpoint"]
    assert list(changed_since(older, now)) == []
    del older["reward"]["pattern"]
    assert list(changed_since(older, now)) == [("reward.pattern", None, "a")]


def test_a_source_that_is_added_or_gone_is_a_change() -> None:
    settings: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"best": None}}
    both = kept(data=SOURCES, **settings)
    one = copy.deepcopy(both)
    gone = one["data"]["sources"].pop("b")
    assert list(changed_since(both, one)) == [("data.sources.b", gone, None)]
    assert list(changed_since(one, both)) == [("data.sources.b", None, gone)]
    assert not is_ordinary("data.sources.b", gone, None)
