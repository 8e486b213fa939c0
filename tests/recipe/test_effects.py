"""A setting without effect is refused, whatever section decides on that; one that has an effect is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from sharpen.describe import flattened
from sharpen.errors import RecipeError, RewardError
from sharpen.evaluation.settings import EvaluationSettings
from sharpen.methods import METHODS, SFT, Mixed
from sharpen.recipe.loading import derived_recipe, load_recipe, make_recipe
from sharpen.recipe.schema import Recipe
from sharpen.rewards import CallSettings, resolve_reward
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
    ({"method": "sft", "log": {"samples_every": 5}}, "`log.samples_every` has", {"log": {"tokens_every": 10}}),
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
        "`data.sources.a.turns` has no effect: only where completions are sampled",
        {"method": "rft", "reward": "math"},
    ),
    (
        {"method": "reward_model", "data": {"task": None, "sources": {"a": {"train": "a.jsonl", "reward": "math"}}}},
        "`data.sources.a.reward` has no effect: only for a policy",
        {"method": "grpo"},
    ),
    (
        {"method": "dpo", "data": {"task": None, "sources": {"a": {"train": "a.jsonl", "reward": "math"}}}},
        "`data.sources.a.reward` has no effect: only for a policy that samples completions or has held-out prompts",
        {"data": {"sources": {"a": {"held_out": "h.jsonl"}}}},
    ),
    (
        {"method": "dpo", "data": {"task": None, "sources": {"a": {"train": "a.jsonl", "turns": "m:f"}}}},
        "`data.sources.a.turns` has no effect: only where completions are sampled",
        {"data": {"sources": {"a": {"reward": "math", "held_out": "h.jsonl"}}}},
    ),
    (
        {"evaluation": {"every": 1, "n": 2, "temperature": 0}},
        "`evaluation.n` has no effect: only with temperature above 0 or turns",
        {"evaluation": {"temperature": 0.5}},
    ),
    (
        {"evaluation": {"every": 1, "n": 2, "temperature": 0, "k": [2]}},
        "`evaluation.n` has no effect: only with temperature above 0 or turns",
        {"rollout": {"turns": "m:f"}},
    ),
    (
        {"data": {"held_out": "h.jsonl"}},
        "`data.held_out` has no effect: only with `train`, as a task has its own held-out problems",
        SCORED,
    ),
    (
        {"data": {"columns": {"prompt": "question"}}},
        "`data.columns` has no effect: only with `train`, as a task names its own columns",
        SCORED,
    ),
    (
        {"data": {"task": None, "sources": {"a": {"task": "sums", "held_out": "h.jsonl"}}}},
        "`data.sources.a.held_out` has no effect: only with `train`",
        {"reward": "math", "data": {"sources": {"a": {"task": None, "train": "a.jsonl"}}}},
    ),
    (
        {"method": {"name": "grpo", "beta": 0.1, "kl": {"warmup_steps": 2}}, "training": {"steps": 1}},
        "`method.kl.warmup_steps` is 2, and this run has 1 training step: lower it, or raise training.steps",
        {"training": {"steps": 2}},
    ),
    (
        {"method": {"name": "grpo", "minibatches": 2}, "training": {"steps": 3}, "optimizer": {"warmup_steps": 7}},
        "`optimizer.warmup_steps` is 7, and this run has 6 optimizer steps: lower it, or raise training.steps",
        {"training": {"steps": 4}},
    ),
    (
        {
            "method": {"name": "grpo", "beta": 0.1, "kl": {"reference": "reset", "reset_every": 10}},
            "training": {"steps": 10},
        },
        "`method.kl.reference` is reset after every 10 steps, and this run has 10 training steps, so it never would be",
        {"training": {"steps": 11}},
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


def test_effects_on_a_method_name_its_settings() -> None:
    """Which no class can check, as each method has settings of its own."""
    names = [e.setting.removeprefix("method.") for e in Recipe.effects if e.setting.startswith("method.")]
    known = {setting.name for setting in flattened(METHODS["grpo"])}
    assert names
    assert known.issuperset(names)


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
    with pytest.raises(RecipeError, match=r"`optimizer.warmup_steps` is 7, and this run has 6 optimizer steps"):
        make_recipe(tree(changes, {"optimizer": {"warmup_steps": 7}}))


def test_a_reference_that_is_reset_is_reset_within_the_run() -> None:
    """After step 9 of 10; a reset after the last step would change nothing."""
    changes = {"training": {"steps": 10}, "method": {"name": "grpo", "beta": 0.1, "kl": {"reference": "reset"}}}
    assert make_recipe(tree(changes, {"method": {"kl": {"reset_every": 9}}}))
    for every in (10, 400):
        with pytest.raises(RecipeError, match=f"`method.kl.reference` is reset after every {every} steps"):
            make_recipe(tree(changes, {"method": {"kl": {"reset_every": every}}}))


def test_a_recipe_made_from_another_drops_what_has_no_effect_any_more_and_nothing_else() -> None:
    run = make_recipe(tree({"evaluation": {"every": 2, "n": 4, "k": [1, 4], "top_p": 0.9, "prompts": 7}}))
    changed = merge(run.model_dump(mode="json"), {"evaluation": {"temperature": 0}})
    found = derived_recipe(changed, "sharpen eval").evaluation
    assert (found.top_p, found.n, found.k, found.prompts, found.temperature) == (1.0, 1, (1,), 7, 0.0)
    with pytest.raises(RecipeError, match="pass@9 needs n >= 9"):
        derived_recipe(merge(changed, {"evaluation": {"k": [9]}}), "sharpen eval")


RECIPE = """
run: r
model: m
method: {name: grpo, beta: 0.1, kl: {reference: reset, reset_every: 20, warmup_steps: 5}}
data: {task: arithmetic}
optimizer: {warmup_steps: 10}
training: {steps: 30}
evaluation: {every: 5, prompts: 7, n: 2, k: [1, 2], threshold: 0.5}
checkpoint: {best: pass@1}
"""


def load(folder: Path, *overrides: str, text: str = RECIPE) -> tuple[Recipe, list[str]]:
    (folder / "recipe.yaml").write_text(text)
    said: list[str] = []
    return load_recipe(folder / "recipe.yaml", overrides, say=said.append), said


def test_what_an_override_leaves_without_effect_has_its_default_and_is_named(tmp_path: Path) -> None:
    found, said = load(tmp_path, "evaluation.every=0")
    assert found.evaluation == EvaluationSettings(threshold=0.5)
    assert (found.checkpoint.best, found.optimizer.warmup_steps) == (None, 10)
    assert said == [
        f"checkpoint.best, evaluation.k, evaluation.n, evaluation.prompts of {tmp_path / 'recipe.yaml'} have their "
        "defaults, as they have no effect with evaluation.every=0"
    ]


def test_a_short_trial_of_a_recipe_has_no_warm_up_that_is_longer_than_it(tmp_path: Path) -> None:
    found, said = load(tmp_path, "training.steps=3")
    kl = found.method.kl_settings
    assert (found.optimizer.warmup_steps, kl.warmup_steps, kl.reference, kl.reset_every) == (0, 0, "fixed", 400)
    assert said == [
        f"method.kl.reference, method.kl.reset_every, method.kl.warmup_steps, optimizer.warmup_steps of "
        f"{tmp_path / 'recipe.yaml'} have their defaults, as they have no effect with training.steps=3"
    ]
    found, said = load(tmp_path, "training.steps=21")
    assert (found.optimizer.warmup_steps, found.method.kl_settings.reset_every, said) == (10, 20, [])


def test_what_the_method_leaves_without_effect_is_no_error_of_an_override_either(tmp_path: Path) -> None:
    found, said = load(tmp_path, "method.beta=0")
    assert found.method.kl_settings == METHODS["grpo"]().kl_settings
    assert said == [f"method.kl of {tmp_path / 'recipe.yaml'} has its default, as it has no effect with method.beta=0"]


@pytest.mark.parametrize(
    ("overrides", "text", "message"),
    [
        (["evaluation.every=0", "evaluation.n=4"], RECIPE, "`evaluation.n` has no effect"),
        (["training.steps=3", "optimizer.warmup_steps=4"], RECIPE, "`optimizer.warmup_steps` is 4"),
        (["seed=3"], RECIPE.replace("every: 5, ", ""), "`evaluation.prompts` has no effect"),
        (["run=q"], RECIPE.replace("every: 5, ", "").replace("run: r", ""), "`evaluation.prompts` has no effect"),
        (["evaluation.every=0", "method.beta=-1"], RECIPE, "`method`: grpo: `beta`: Input should be greater"),
    ],
)
def test_what_was_written_together_is_refused_with_overrides_too(
    overrides: list[str], text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(tmp_path, *overrides, text=text)


def test_old_of_plain_log_likelihoods_has_an_effect_in_a_kl_that_reads_it_and_corrects_nothing_stale() -> None:
    def method(**kl: Any) -> dict[str, Any]:
        return {"method": {"name": "reinforce", "old": "rollout", "beta": 0.1, "kl": kl}}

    for kl in ({"placement": "reward", "estimator": "k1"}, {"placement": "loss", "estimator": "weighted_k3"}):
        assert make_recipe(tree(method(**kl))).method.old_from == "rollout"
        with pytest.raises(RecipeError, match=r"rollout\.lag is 1, and method reinforce does not correct"):
            make_recipe(tree(method(**kl), {"rollout": {"lag": 1}}))
    for kl in ({"placement": "reward", "estimator": "exact"}, {"placement": "loss", "estimator": "k2"}):
        with pytest.raises(RecipeError, match=r"`method\.old` has no effect: only with clip, with a KL"):
            make_recipe(tree(method(**kl)))


def test_an_effect_of_no_setting_cannot_be_declared() -> None:
    for name in ("widht", "part.widht", "width.more"):
        with pytest.raises(TypeError, match=f"Wrong.effects: there is no setting `{name}`"):
            type("Wrong", (Whole,), {"effects": (Effect(name, "with on", lambda s: s.on),), "__module__": __name__})


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
