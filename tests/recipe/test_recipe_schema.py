"""The JSON Schema of a recipe: what it accepts and refuses, and that the file in `recipes` is what the code gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from omegaconf import OmegaConf
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.methods import METHODS
from sharpen.recipe.json_schema import recipe_json_schema
from sharpen.recipe.loading import load_recipe
from sharpen.rewards.kinds import REWARDS

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(RECIPES.glob("*.yaml"))
SCHEMA = recipe_json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
SMALLEST: dict[str, Any] = {"run": "r", "model": "m", "method": "grpo", "data": {"task": "arithmetic"}}


def complaint(**changes: Any) -> tuple[str, str] | None:
    """Where in a recipe the most telling error is, and what it says; None if there is none."""
    error = best_match(VALIDATOR.iter_errors({**SMALLEST, **changes}))
    return None if error is None else (error.json_path, error.message)


def test_it_is_a_valid_schema_of_draft_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


def test_the_file_beside_the_recipes_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == SCHEMA
    written = (RECIPES / "recipe.schema.json").read_text()
    assert written == result.stdout, "sharpen schema > recipes/recipe.schema.json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_recipe_names_it_in_its_first_line_and_is_valid(file: Path) -> None:
    assert file.read_text().splitlines()[0] == "# yaml-language-server: $schema=recipe.schema.json"
    assert [error.message for error in VALIDATOR.iter_errors(OmegaConf.to_container(OmegaConf.load(file)))] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_saved_recipe_is_valid_too(file: Path) -> None:
    saved = OmegaConf.to_container(OmegaConf.create(load_recipe(file).to_yaml()))
    assert [error.message for error in VALIDATOR.iter_errors(saved)] == []


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({"trainin": {}}, "$", "'trainin' was unexpected"),
        ({"training": {"stepz": 1}}, "$.training", "'stepz' was unexpected"),
        ({"training": {"steps": "many"}}, "$.training.steps", "'many' is not of type 'integer'"),
        ({"training": {"steps": 0}}, "$.training.steps", "0 is less than the minimum of 1"),
        (
            {"optimizer": {"schedule": "cosin"}},
            "$.optimizer.schedule",
            "is not one of ['constant', 'linear', 'cosine']",
        ),
        ({"optimizer": {"betas": [0.9]}}, "$.optimizer.betas", "[0.9] is too short"),
        ({"model": {"path": "m", "lora": {"rank": 0}}}, "$.model.lora.rank", "0 is less than the minimum of 1"),
        ({"method": {"name": "grpo", "group_siz": 4}}, "$.method", "'group_siz' was unexpected"),
        ({"method": {"name": "sft", "group_size": 4}}, "$.method", "'group_size' was unexpected"),
        ({"method": {"name": "grpo", "beta": "x"}}, "$.method.beta", "'x' is not of type 'number'"),
        ({"method": {"name": "ppo", "kl": {"estimator": "k4"}}}, "$.method.kl.estimator", "'k4' is not one of"),
        ({"method": {"name": "grpo", "dual_clip": 1}}, "$.method.dual_clip", "less than or equal to the minimum of 1"),
        ({"method": {"group_size": 4}}, "$.method", "'name' is a required property"),
        ({"method": "gpro"}, "$.method", "'gpro'"),
        ({"reward": {"name": "math", "colum": "x"}}, "$.reward", "'colum' was unexpected"),
        ({"reward": ["tags", {"name": "math", "colum": "x"}]}, "$.reward[1]", "'colum' was unexpected"),
        ({"reward": {"name": "math", "weight": "much"}}, "$.reward.weight", "'much' is not"),
        ({"reward": {"name": "math", "gate": {"at_lest": 1}}}, "$.reward.gate", "'at_lest' was unexpected"),
        ({"reward": {"name": "math", "call": {"retry": 1}}}, "$.reward.call", "'retry' was unexpected"),
        ({"reward": {"name": "regex"}}, "$.reward", "'pattern' is a required property"),
        (
            {"reward": {"name": "soft_overlong", "l_max": 9, "l_cache": 1, "call": {}}},
            "$.reward",
            "'call' was unexpected",
        ),
        ({"reward": {"name": "r.py:f", "weight": "much"}}, "$.reward.weight", "'much' is not"),
        ({"reward": "mth"}, "$.reward", "'mth'"),
        ({"data": {"task": "arithmetc"}}, "$.data.task", "'arithmetc'"),
        ({"data": {"task": "arithmetic?term=3"}}, "$.data.task", "'arithmetic?term=3'"),
        ({"data": {"sources": {"a": {"shar": 2}}}}, "$.data.sources.a", "'shar' was unexpected"),
        ({"data": {"sources": {"a": {"reward": {"name": "math", "colum": 1}}}}}, "$.data.sources.a.reward", "'colum'"),
        ({"log": {"loggers": ["tensorbord"]}}, "$.log.loggers[0]", "'tensorbord'"),
        ({"log": {"loggers": [{"name": "trackio", "project": "x", "spc": 1}]}}, "$.log.loggers[0]", "'spc' was"),
        ({"log": {"loggers": [{"nam": "wandb"}]}}, "$.log.loggers[0]", "'name' is a required property"),
        ({"log": {"loggers": {"nam": "wandb"}}}, "$.log.loggers", "'name' is a required property"),
        ({"data": {"train": 7}}, "$.data.train", "7 is not"),
    ],
)
def test_what_is_wrong_is_found_where_it_is(changes: dict[str, Any], where: str, message: str) -> None:
    found = complaint(**changes)
    assert found is not None
    assert found[0] == where
    assert message in found[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "own.methods:Mine"},
        {"method": {"name": "mine.py:Mine", "strength": 3}},
        {"method": {"name": "ppo", "kl": {"target": 0.1}, "critic_path": None}},
        {"reward": "rewards.py:f"},
        {"reward": {"name": "rewards.py:f", "k": 3, "weight": 0.5, "gate": True}},
        {"reward": [{"name": "tags", "gate": 0.5}, {"name": "math", "call": {"timeout_s": 3}}, "task"]},
        {"reward": {"name": "steps", "function": "steps.py:f", "of_the_function": 3}},
        {"reward": {"name": "json_schema", "schema": {"type": "object"}}},
        {"data": {"task": "arithmetic?terms=3&digits=1"}},
        {"data": {"task": "reasoning_gym:chain_sum?terms=3"}},
        {"data": {"task": "tasks.py:Mine"}},
        {"data": {"train": "rows.jsonl", "held_out": None}},
        {"log": {"loggers": "tensorboard"}},
        {"log": {"loggers": {"name": "wandb", "project": "sums"}}},
        {"log": {"loggers": ["tensorboard", {"name": "wandb", "project": "sums"}, {"name": "m.py:CsvLogger", "k": 1}]}},
        {"data": {"sources": {"sums": {"task": "sums"}, "mine": {"train": "a.jsonl", "reward": ["math", "r.py:f"]}}}},
        {"model": {"path": "m", "lora": {}}},
        {"rollout": {"engine": {"name": "m:E", "settings": {"url": "x"}}}},
    ],
)
def test_what_a_recipe_may_say_is_accepted(changes: dict[str, Any]) -> None:
    assert complaint(**changes) is None


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_exactly_its_settings_with_their_defaults(name: str) -> None:
    schema = SCHEMA["$defs"][f"method_{name}"]
    saved = METHODS[name]().model_dump(mode="json")
    assert set(schema["properties"]) == set(saved)
    assert schema["properties"].pop("name") == {"const": name}
    assert {key: found["default"] for key, found in schema["properties"].items()} == {
        key: value for key, value in saved.items() if key != "name"
    }
    if "kl" in saved:
        section = SCHEMA["$defs"][schema["properties"]["kl"]["$ref"].rpartition("/")[2]]
        assert {key: found["default"] for key, found in section["properties"].items()} == saved["kl"]


def test_everything_has_a_description_that_says_when_it_has_an_effect() -> None:
    for name, schema in SCHEMA["$defs"].items():
        if name.startswith("logger_"):
            continue  # the parameters of another package's function
        for key, found in schema.get("properties", {}).items():
            assert key == "name" or found.get("description"), (name, key)
    described = SCHEMA["$defs"]
    assert described["method_dapo"]["properties"]["max_rounds"]["description"].endswith(" Only with dynamic_sampling.")
    assert described["EvaluationSettings"]["properties"]["top_p"]["description"].endswith(
        " Only with every, and with temperature above 0, and where completions are sampled."
    )
    assert {"method_grpo", "reward_task", *(f"reward_{name}" for name in REWARDS)} <= described.keys()
