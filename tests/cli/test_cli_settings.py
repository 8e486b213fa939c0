"""``sharpen settings``: every setting of every section, method and reward, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.methods import METHODS
from sharpen.methods.kl import KL
from sharpen.recipe.describe import TOP, Part, find, methods, rewards, sections
from sharpen.rewards.kinds import REWARDS

PARTS = (*sections(), *methods(), *rewards())


def said(*arguments: str, columns: int = 100) -> str:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["settings", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def words(text: str) -> str:
    return " ".join(text.split())


def as_json(*name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(said(*name, "--json"))
    return found


def complaint(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["settings", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    return words(result.stderr)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.kind} {part.name}")
def test_every_setting_has_a_meaning(part: Part) -> None:
    assert part.about
    for setting in part.settings:
        assert setting.meaning[:1].isalnum() or setting.meaning[:1] in "π|λμ", (part.name, setting.name)
        assert setting.meaning.endswith("."), (part.name, setting.name)
        assert setting.values


@pytest.mark.parametrize("columns", [80, 120])
def test_without_a_name_all_sections_are_shown_as_wide_as_the_terminal(columns: int) -> None:
    shown = said(columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    printed = shown.split()
    for part in sections():
        assert part.name in printed
        assert {s.name for s in part.settings} <= set(printed)
    assert set(METHODS) | set(REWARDS) <= {word.strip(",") for word in printed}


def test_a_section_shows_values_default_meaning_and_when_it_has_an_effect_and_the_sections_within() -> None:
    shown = words(said("rollout"))
    assert "rollout section" in shown
    assert "max_new_tokens 256 The longest completion in tokens" in shown
    assert "Only with turns. blocks, free" in shown
    assert "rollout.engine section" in shown
    assert "Only with the engine local. number > 0 and ≤ 1000000 or null" in shown
    assert "learning_rate" not in shown
    assert "path required A Hugging Face folder" in words(said("model"))


def test_a_method_and_a_reward_of_one_name_are_both_shown() -> None:
    assert [(part["kind"], part["name"]) for part in as_json("reward_model")] == [
        ("method", "reward_model"),
        ("reward", "reward_model"),
    ]


def test_json_of_everything_has_each_part_once() -> None:
    found = as_json()
    assert [(part["kind"], part["name"]) for part in found] == [(part.kind, part.name) for part in PARTS]
    kinds = [part["kind"] for part in found]
    assert (kinds.count("method"), kinds.count("reward")) == (len(METHODS), len(REWARDS))


def test_json_of_a_setting_has_its_bounds_default_and_condition() -> None:
    [part] = as_json("optimizer.min_ratio")
    assert part["settings"] == [
        {
            "name": "min_ratio",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.0,
            "meaning": "The decay ends at this fraction of `learning_rate`.",
            "only": ["with schedule linear or cosine"],
        }
    ]
    [model] = as_json("model.path")
    assert model["settings"][0]["required"] is True
    [rounds] = [s for s in as_json("dapo")[0]["settings"] if s["name"] == "max_rounds"]
    assert rounds["only"] == ["with dynamic_sampling"]
    [rollout, engine] = as_json("rollout")
    assert (rollout["only"], "only" in engine) == (["for a policy"], False)


def test_a_reward_has_its_own_settings_and_those_of_every_entry_of_a_list() -> None:
    names = [s["name"] for s in as_json("math")[0]["settings"]]
    assert names[:2] == ["column", "answer_from"]
    assert {"weight", "gate.at_least", "call.timeout_s"} <= set(names)
    assert not [s for s in as_json("soft_overlong")[0]["settings"] if s["name"].startswith("call")]


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    assert "there is no section, method, reward or setting `rolout`. Did you mean `rollout`?" in complaint("rolout")
    assert "Did you mean `dapo`?" in complaint("dappo")
    assert "Did you mean `exact_answer`?" in complaint("exact_anser")
    assert "Did you mean `rollout.lag`?" in complaint("rollout.lagg")
    assert "Did you mean `group_size`?" in complaint("num_generations")
    assert "Did you mean `optimizer.learning_rate`?" in complaint("lr")
    assert "--json or --markdown" in complaint("--json", "--markdown")


def test_markdown_is_the_table_of_the_docs() -> None:
    assert said("model.lora", "--markdown").splitlines()[:5] == [
        "## `model.lora`",
        "",
        "| setting | values | default | meaning |",
        "|---|---|---|---|",
        "| `rank` | whole number ≥ 1 and ≤ 100000 | 16 | Rows of A, columns of B. |",
    ]


def test_the_help_of_run_says_where_to_look() -> None:
    shown = words(CliRunner(env={"COLUMNS": "100"}).invoke(app, ["run", "--help"]).stdout)
    assert "sharpen settings lists every setting of a recipe" in shown


@pytest.mark.parametrize("name", ["method", "reward"])
def test_the_section_of_a_method_or_reward_leads_to_them(name: str) -> None:
    shown = words(said(name))
    assert f"{name.title()}s: {', '.join(METHODS if name == 'method' else REWARDS)}" in shown
    assert "The settings of a section, a method or a reward: sharpen settings NAME" in shown


@pytest.mark.parametrize("name", ["kl", "method.kl", "kl.estimator", "method.kl.estimator"])
def test_a_section_of_methods_is_found_and_says_in_which(name: str) -> None:
    found = as_json(name)
    assert {part["kind"] for part in found} == {"method"}
    of = {method for part in found for method in part["name"].split(", ")}
    assert of == {method for method, kind in METHODS.items() if "kl" in kind.model_fields}
    [grpo] = [part for part in found if "grpo" in part["name"].split(", ")]
    names = [setting["name"] for setting in grpo["settings"]]
    assert names == (["kl.estimator"] if name.endswith("estimator") else [f"kl.{field}" for field in KL.model_fields])
    [estimator] = [setting for setting in grpo["settings"] if setting["name"] == "kl.estimator"]
    assert estimator["default"] == "k3"


@pytest.mark.parametrize("name", ["weight", "gate", "call", "reward.gate", "gate.at_least", "call.timeout_s"])
def test_what_all_rewards_share_is_found(name: str) -> None:
    [found] = as_json(name)
    assert (found["kind"], found["name"]) == ("reward", "every reward")
    path = name.removeprefix("reward.")
    assert found["settings"][0]["name"] == path


def test_every_path_that_a_recipe_can_hold_is_found() -> None:
    for part in sections():
        for setting in part.settings:
            assert find(setting.name if part.name == TOP else f"{part.name}.{setting.name}")
    for part in (*methods(), *rewards()):
        for setting in part.settings:
            for path in (f"{part.kind}.{setting.name}", f"{part.name}.{setting.name}"):
                found = find(path)
                assert any(part.name in one.name.split(", ") or one.name == "every reward" for one in found), path
    assert find("data.sources.mine.share")[0].settings[0].name == "share"


def test_a_bare_name_is_shown_wherever_it_is_a_setting() -> None:
    found = as_json("temperature")
    assert [part["name"] for part in found] == ["rollout", "evaluation"]
