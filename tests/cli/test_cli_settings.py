"""``sharpen settings``: every setting of every section, method and reward, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.methods import METHODS
from sharpen.recipe.describe import Part, methods, rewards, sections
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
    assert "Only with the engine local. number > 0 or null" in shown
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
    assert "Did you mean `rollout.temperature` or `evaluation.temperature`?" in complaint("temperature")
    assert "--json or --markdown" in complaint("--json", "--markdown")


def test_markdown_is_the_table_of_the_docs() -> None:
    assert said("model.lora", "--markdown").splitlines()[:5] == [
        "## `model.lora`",
        "",
        "| setting | values | default | meaning |",
        "|---|---|---|---|",
        "| `rank` | whole number ≥ 1 | 16 | Rows of A, columns of B. |",
    ]


def test_the_help_of_run_says_where_to_look() -> None:
    shown = words(CliRunner(env={"COLUMNS": "100"}).invoke(app, ["run", "--help"]).stdout)
    assert "sharpen settings lists every setting of a recipe" in shown
