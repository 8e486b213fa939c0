"""A setting without effect is refused, whatever section decides on that; one that has an effect is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from sharpen.errors import RecipeError, RewardError
from sharpen.methods import METHODS, SFT, Mixed
from sharpen.recipe.loading import derived_recipe, load_recipe, make_recipe
from sharpen.recipe.schema import Recipe
from sharpen.rewards import CallSettings, resolve_reward
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.registry import Weighting
from sharpen.settings import Effect, Settings, explain, section_of
from tiny_runs import merge


class Part(Settings):
    """A section of the one below."""

    width: int = 3
    kind: Literal["round", "square"] = "round"

    effects = (Effect("width", "with kind square", lambda s: s.kind == "square"),)


class Square(Part):
    """With another default, and so another value that is none of the user's."""

    width: int = 5


class Whole(Settings):
    part: Part = Part(kind="square", width=7)
    other: Part | None = None
    on: bool = True

    effects = (Effect("part", "with on", lambda s: s.on), Effect("other.kind", "with {on}", lambda s: s.on))


def complaint(kind: type[Settings], tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as error:
        kind.model_validate(tree)
    return list(explain(error.value, kind))


def test_the_default_that_counts_is_that_of_the_class_and_of_a_section_that_of_where_it_is() -> None:
    assert complaint(Part, {"width": 5}) == ["`width` has no effect: only with kind square"]
    assert Part(width=3) == Part()
    assert complaint(Square, {"width": 3}) == ["`width` has no effect: only with kind square"]
    assert Square(width=5) == Square()
    assert Whole(on=False, part={"kind": "square", "width": 7}).part.width == 7
    assert complaint(Whole, {"on": False, "part": {}}) == ["`part` has no effect: only with on"]
    assert complaint(Whole, {"part": {"width": 2}}) == ["`part.width` has no effect: only with kind square"]


def test_a_section_that_is_not_there_has_no_setting_without_effect() -> None:
    assert Whole(on=False).other is None
    assert Whole(on=False, other={}).other == Part()
    assert complaint(Whole, {"on": False, "other": {"kind": "square"}}) == [
        "`other.kind` has no effect: only with {on}"
    ]


ROWS = {"data": {"task": None, "train": "x.jsonl"}}
SCORED = {**ROWS, "reward": "math"}
PREFERENCES = {"method": "reward_model", **ROWS}
EVERY = {"evaluation": {"every": 1}}
OWN = {"rollout": {"engine": {"name": "m:E"}}}

NO_EFFECT: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (
        {"rollout": {"max_turns": 3}},
        "`rollout.max_turns` has no effect: only with turns",
        {"rollout": {"turns": "m:f"}},
    ),
    ({"rollout": {"turn_timeout_s": 3}}, "`rollout.turn_timeout_s` has", {"rollout": {"turns": "m:f"}}),
    ({"rollout": {"flow": "free"}}, "`rollout.flow` has no effect", {"rollout": {"turns": "m:f"}}),
    (
        {"rollout": {"engine": {"settings": {"url": "x"}}}},
        "`rollout.engine.settings` has no effect: only with an engine of your own",
        OWN,
    ),
    (
        merge(OWN, {"rollout": {"engine": {"kv_gib": 1.0}}}),
        "`rollout.engine.kv_gib` has no effect: only with the engine local",
        {"rollout": {"engine": {"name": "local"}}},
    ),
    (
        merge(OWN, {"rollout": {"engine": {"max_sequences": 4}}}),
        "`rollout.engine.max_sequences` has no effect: only with the engine local",
        {"rollout": {"engine": {"name": "local"}}},
    ),
    ({"optimizer": {"min_ratio": 0.1}}, "`optimizer.min_ratio` has", {"optimizer": {"schedule": "linear"}}),
    ({"evaluation": {"prompts": 9}}, "`evaluation.prompts` has no effect: only with every", EVERY),
    ({"evaluation": {"n": 2}}, "`evaluation.n` has no effect: only with every", EVERY),
    ({"evaluation": {"n": 2, "k": [2]}}, "`evaluation.k` has no effect: only with every", EVERY),
    ({"evaluation": {"temperature": 0}}, "`evaluation.temperature` has no effect: only with every", EVERY),
    ({"evaluation": {"top_p": 0.9}}, "`evaluation.top_p` has no effect: only with every", EVERY),
    (
        {"evaluation": {"every": 1, "temperature": 0, "top_p": 0.9}},
        "`evaluation.top_p` has no effect: only with temperature above 0",
        {"evaluation": {"temperature": 0.5}},
    ),
    (
        {"evaluation": {"every": 1, "temperature": 0, "top_k": 9}},
        "`evaluation.top_k` has no effect: only with temperature above 0",
        {"evaluation": {"temperature": 0.5}},
    ),
    (
        {"evaluation": {"every": 1, "temperature": 0, "min_p": 0.1}},
        "`evaluation.min_p` has no effect: only with temperature above 0",
        {"evaluation": {"temperature": 0.5}},
    ),
    ({"model": {"device": "cpu", "compiled": False}}, "`model.compiled` has", {"model": {"device": "cuda:1"}}),
    ({"checkpoint": {"best": "reward"}}, "`checkpoint.best` has no effect: only with evaluation.every", EVERY),
    (
        {"method": "sft", "rollout": {"lag": 1}},
        "`rollout.lag` has no effect",
        {"method": {"name": "grpo", "tis_cap": 2}},
    ),
    ({"method": "sft", "rollout": {"temperature": 0.5}}, "`rollout.temperature` has", {"method": "rft"}),
    ({"method": "sft", "log": {"samples_every": 5}}, "`log.samples_every` has no effect", {"method": "rft"}),
    ({"data": {"step_separator": ";"}}, "`data.step_separator` has", {"method": "process_reward_model"}),
    (
        merge(ROWS, {"method": "sft", "data": {"demonstrations": "d.jsonl"}}),
        "`data.demonstrations` has no effect",
        {"method": "reward_model"},
    ),
    (
        {"method": {"name": "reward_model", "centre": False}, **merge(ROWS, {"data": {"demonstrations": "d.jsonl"}})},
        "`data.demonstrations` has no effect",
        {"method": "reward_model"},
    ),
    (
        {"data": {"task": None, "sources": {"a": {"task": "sums", "share": 2.0}}}},
        "`data.sources.a.share` has no effect: only with several data sources",
        {"data": {"sources": {"b": {"task": "words"}}}},
    ),
    (
        {"data": {"task": None, "sources": {"a": {"task": "sums", "max_turns": 2}}}},
        "`data.sources.a.max_turns` has no effect: only with turns",
        {"data": {"sources": {"a": {"turns": "m:f"}}}},
    ),
    (
        {"method": "reward_model", "data": {"task": None, "sources": {"a": {"train": "a.jsonl", "turns": "m:f"}}}},
        "`data.sources.a.turns` has no effect: only for a policy",
        {"method": "sft"},
    ),
    (
        {"method": "reward_model", "data": {"task": None, "sources": {"a": {"train": "a.jsonl", "reward": "math"}}}},
        "`data.sources.a.reward` has no effect: only for a policy",
        {"method": "grpo"},
    ),
    (
        {"data": {"task": None, "sources": {"a": {"task": "sums"}}}, "reward": "math"},
        "`reward` has no effect: only for data sources without a reward or task of their own",
        {"data": {"sources": {"b": {"train": "b.jsonl"}}}},
    ),
    ({"data": {"mixed": "m.jsonl"}}, "`data.mixed` has no effect", {"method": f"{__file__}:Imitating"}),
    ({"method": "sft", **SCORED}, "`reward` has no effect", {"data": {"held_out": "h.jsonl"}}),
    ({"method": "reward_model", "reward": "math"}, "`reward` has no effect: only for a policy", {"method": "sft"}),
    (
        {"method": "sft", **ROWS, "reward_check": {"rows": 5}},
        "`reward_check` has no effect",
        {**SCORED, "method": "rft"},
    ),
    ({"method": "reward_model", "rollout": {"max_new_tokens": 9}}, "`rollout` has no effect", {"method": "dpo"}),
    (
        {"method": "dpo", **ROWS, "rollout": {"turns": "m:f"}},
        "`rollout.turns` has no effect",
        {"method": "rft", **SCORED},
    ),
    (
        {"method": "sft", **ROWS, "rollout": {"max_reward_failures": 1}},
        "`rollout.max_reward_failures` has no effect",
        {"method": "rft", **SCORED},
    ),
    *(
        (
            {"method": "reward_model", "evaluation": {"every": 1, name: value}},
            f"`evaluation.{name}` has no effect: only where completions are sampled",
            {"method": "dpo"},
        )
        for name, value in {"n": 2, "temperature": 0.5, "threshold": 0, "top_p": 0.9, "top_k": 1, "min_p": 0.1}.items()
    ),
    (
        {"method": "reward_model", "evaluation": {"every": 1, "n": 2, "k": [2]}},
        "`evaluation.k` has no effect: only where completions are sampled",
        {"method": "dpo"},
    ),
]
"""What a recipe changes, what is said of it, and what gives it an effect."""


class Imitating(METHODS["grpo"]):  # type: ignore[misc]  # a class found by name
    """With demonstrations as a second source."""

    name = "imitating"

    def mixed(self) -> Mixed:
        return Mixed(SFT(), 1.0, 1)


def tree(*changes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"run": "r", "model": {"path": "m"}, "method": "grpo", "data": {"task": "arithmetic"}}
    for change in changes:
        found = merge(found, change)
    return found


@pytest.mark.parametrize(("change", "message", "remedy"), NO_EFFECT)
def test_what_has_no_effect_is_refused_and_accepted_where_it_has_one(
    change: dict[str, Any], message: str, remedy: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"recipe: {message}")):
        make_recipe(tree(change))
    found = make_recipe(tree(change, remedy))
    assert derived_recipe(tree(change, remedy), "recipe") == found


def with_sections(*kinds: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for kind in kinds:
        yield kind
        yield from with_sections(
            *(s for f in kind.model_fields.values() if (s := section_of(f.annotation)) is not None)
        )


def test_each_effect_of_a_recipe_is_tried() -> None:
    said = {message.split("`")[1].rpartition(".")[2] for _, message, _ in NO_EFFECT}
    kinds = set(with_sections(Recipe))
    assert said == {e.setting.rpartition(".")[2] for k in kinds if issubclass(k, Settings) for e in k.all_effects()}


def test_each_effect_names_a_setting() -> None:
    kinds = with_sections(Recipe, Weighting, *METHODS.values(), *(kind.settings for kind in REWARDS.values()))
    for kind in kinds:
        for effect in kind.all_effects() if issubclass(kind, Settings) else ():
            inner: type[BaseModel] | None = kind
            for name in effect.setting.split("."):
                assert inner is not None
                assert name in inner.model_fields, (kind, effect.setting)
                inner = section_of(inner.model_fields[name].annotation)


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_recipe_gives_every_setting_and_is_read_again(name: str, tmp_path: Path) -> None:
    found = make_recipe(tree({"method": name}))
    (tmp_path / "recipe.yaml").write_text(found.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == found


def test_turns_of_a_source_give_the_flow_of_a_rollout_an_effect() -> None:
    data = {"task": None, "sources": {"a": {"task": "sums", "turns": "m:f"}, "b": {"task": "words"}}}
    assert make_recipe(tree({"data": data, "rollout": {"flow": "free"}})).rollout.flow == "free"


def test_held_out_rows_and_a_threshold_have_an_effect_without_evaluations() -> None:
    """`sharpen eval` reads the rows, `sharpen reward check` the threshold."""
    held_out = make_recipe(tree(SCORED, {"data": {"held_out": "h.jsonl"}, "evaluation": {"threshold": 0.5}}))
    assert (held_out.data.held_out, held_out.evaluation.threshold) == ("h.jsonl", 0.5)


def test_a_warm_up_ends_within_the_run() -> None:
    """Of 3 training steps with 2 updates each."""
    changes = {"training": {"steps": 3}, "method": {"name": "grpo", "minibatches": 2}}
    assert make_recipe(tree(changes, {"optimizer": {"warmup_steps": 6}})).optimizer.warmup_steps == 6
    with pytest.raises(RecipeError, match=r"optimizer.warmup_steps is 7, more than the 6 optimizer steps of this run"):
        make_recipe(tree(changes, {"optimizer": {"warmup_steps": 7}}))


def test_a_reference_that_is_reset_is_reset_within_the_run() -> None:
    """After step 9 of 10; a reset after the last step would change nothing."""
    changes = {"training": {"steps": 10}, "method": {"name": "grpo", "beta": 0.1, "kl": {"reference": "reset"}}}
    assert make_recipe(tree(changes, {"method": {"kl": {"reset_every": 9}}}))
    for every in (10, 400):
        with pytest.raises(RecipeError, match=f"method.kl.reset_every is {every} and training.steps 10: the reference"):
            make_recipe(tree(changes, {"method": {"kl": {"reset_every": every}}}))


def test_a_recipe_made_from_another_drops_what_has_no_effect_any_more_and_nothing_else() -> None:
    run = make_recipe(tree({"evaluation": {"every": 2, "n": 4, "k": [1, 4], "top_p": 0.9, "prompts": 7}}))
    changed = merge(run.model_dump(mode="json"), {"evaluation": {"temperature": 0}})
    found = derived_recipe(changed, "sharpen eval").evaluation
    assert (found.top_p, found.n, found.k, found.prompts, found.temperature) == (1.0, 4, (1, 4), 7, 0.0)
    with pytest.raises(RecipeError, match="pass@9 needs n >= 9"):
        derived_recipe(merge(changed, {"evaluation": {"k": [9]}}), "sharpen eval")


@pytest.mark.parametrize(
    ("reward", "message", "remedy"),
    [
        ({"name": "exact_answer", "marker": "A:"}, "`marker` has no effect: only with answer_from marker", "marker"),
        ({"name": "exact_answer", "tag": "a"}, "`tag` has no effect: only with answer_from tags", "tags"),
        ({"name": "math", "tag": "a"}, "`tag` has no effect: only with answer_from tags", "tags"),
        ({"name": "json_schema", "column": "c", "tag": "a"}, "`tag` has no effect: only with answer_from tags", "tags"),
    ],
)
def test_a_setting_of_a_reward_without_effect_is_refused(reward: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(RewardError, match=re.escape(message)):
        resolve_reward(reward)
    assert resolve_reward({**reward, "answer_from": remedy})


def test_settings_of_programs_without_effect_are_refused() -> None:
    with pytest.raises(RewardError, match="`tag` has no effect: only with code_from tags"):
        resolve_reward({"name": "code_compiles", "tag": "a"})
    assert resolve_reward({"name": "code_compiles", "tag": "a", "code_from": "tags"})
    with pytest.raises(RewardError, match="`score` has no effect: only with several tests in a row"):
        resolve_reward({"name": "code_check", "score": "share"})
    assert resolve_reward({"name": "code_asserts", "score": "share"})


def test_a_pause_before_retries_needs_retries() -> None:
    for settings in ({"backoff_s": 2.0}, {"retry_on": ("OSError",)}):
        assert complaint(CallSettings, settings) == [f"`{next(iter(settings))}` has no effect: only with retries"]
        assert CallSettings(retries=1, **settings).retries == 1
