"""Every recipe runs as it is written, with a tiny model where it wants its model and fewer, smaller steps."""

from __future__ import annotations

import json
import math
import re
import string
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

import sharpen
from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.errors import RecipeError
from sharpen.launch.reward_check import check_recipe
from sharpen.launch.run import Run, start
from sharpen.methods import METHODS
from sharpen.models.character_model import create_character_model
from sharpen.recipe.loading import load_recipe, make_recipe
from sharpen.recipe.schema import Recipe
from tiny_runs import merge

RECIPES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))}
SIZES = {"train_size": 64, "held_out_size": 8, "demonstration_size": 64, "preference_size": 64, "step_label_size": 64}
START = "runs/demo/sft"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def small(name: str) -> Recipe:
    """The recipe with two steps of a few short completions. Models, paths, rewards and the rest are as written."""
    recipe = load_recipe(RECIPES[name])
    tree = recipe.model_dump(mode="json")
    sizes = {"group_size": min(8, tree["method"].get("group_size", 1)), "prompts": 16}
    changes: dict[str, Any] = {
        "training": {"steps": 2, "prompts_per_step": 8 if sizes["group_size"] > 1 else 64},
        "evaluation": {"every": 1, "prompts": 4},
        "method": {key: size for key, size in sizes.items() if key in tree["method"]},
    }
    if on_arithmetic(recipe):
        changes["data"] = {"task": str(recipe.data.task) + "".join(f"&{key}={size}" for key, size in SIZES.items())}
    return make_recipe(merge(tree, changes))


def on_arithmetic(recipe: Recipe) -> bool:
    return str(recipe.data.task).startswith("arithmetic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything that recipes name is where they say, made by the recipes where one makes it."""
    folder = tmp_path_factory.mktemp("recipes")
    sizes: dict[str, Any] = {"layers": 1, "heads": 2}
    untrained = create_character_model(folder / "untrained", alphabet=ALPHABET, hidden=32, intermediate=64, **sizes)
    # Some of its guesses are right, so that there is something to imitate and to reward.
    sharpen.train(
        untrained,
        "sft",
        "arithmetic?terms=4&digits=1&guess_share=1&train_size=64&demonstration_size=2000",
        run=folder / START,
        quiet=True,
        optimizer={"learning_rate": 5e-3},
        training={"steps": 60, "prompts_per_step": 32},
    )
    chat = create_character_model(
        folder / "models/SmolLM2-135M-Instruct", alphabet=string.printable, hidden=16, intermediate=32, **sizes
    )
    settings = json.loads((chat / "tokenizer_config.json").read_text())
    (chat / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        start(small("reward_model"))
    return folder


def run_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    recipe = small(name)
    made = folder / recipe.run
    return Run(made, made / "checkpoints/step_000002", True) if made.exists() else start(recipe)


def test_every_method_has_its_recipe() -> None:
    used = {name: load_recipe(path).method.name for name, path in RECIPES.items()}
    assert {used[name] for name in METHODS} == set(METHODS)
    assert all(name.startswith(method) for name, method in used.items())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_it_is_run_and_writes_where_its_name_says(name: str) -> None:
    head = RECIPES[name].read_text().partition("\nrun:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"sharpen run recipes/{name}.yaml" in head
    recipe = load_recipe(RECIPES[name])
    assert recipe.run == Path("runs") / name
    if on_arithmetic(recipe):
        assert recipe.model.path == START
        assert "sharpen demo" in head


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(name, folder, monkeypatch)
    rows = run.metric_rows()
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    adapted = load_recipe(RECIPES[name]).model.lora is not None
    assert (run.model / ("adapter_model.safetensors" if adapted else "model.safetensors")).is_file()
    if on_arithmetic(load_recipe(RECIPES[name])):
        assert sum(row.get("updates/applied", 0) for row in rows) > 0


REWARDED = [name for name, path in RECIPES.items() if load_recipe(path).method.makes_a_policy]


@pytest.mark.parametrize("name", [name for name in REWARDED if name != "ppo"])
def test_the_reward_of_a_recipe_is_sound(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for report in check_recipe(load_recipe(RECIPES[name])):
        assert report.ok, report.findings
        assert report.references.full == report.rows


def test_the_rewards_of_the_demo_are_sound() -> None:
    for name in ("demo_sft.yaml", "demo_grpo.yaml"):
        with as_file(files("sharpen.pipelines") / name) as path:
            assert all(report.ok for report in check_recipe(load_recipe(path)))


def test_a_reward_model_is_checked_with_the_tokens_of_the_policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is there has learned nothing yet, so its verdicts are not looked at, only that there are some."""
    monkeypatch.chdir(folder)
    (report,) = check_recipe(load_recipe(RECIPES["ppo"], ["reward_check.rows=4", "reward_check.cheat_rows=2"]))
    assert report.references.tried == 4
    assert not report.stops
    empty = next(found for found in report.results if found.cheat.name == "empty")
    assert (empty.tried, report.threshold) == (2, 0)
    assert empty.highest is not None  # the end of the sequence is a token that has a score
    orders = next(found for found in report.results if found.cheat.name == "judge_orders")
    assert orders.tried == 0  # the policy has no letters


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in REWARDED])
def test_a_recipe_that_trains_a_reward_has_none_to_check(name: str) -> None:
    with pytest.raises(RecipeError, match="trains a reward model, so there is no reward"):
        check_recipe(load_recipe(RECIPES[name]))


def test_ppo_follows_the_reward_model_and_logs_what_is_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = run_of("ppo", folder, monkeypatch).metric_rows()[1]
    assert row["reward/mean"] == pytest.approx(row["reward/reward_model"])
    assert 0 <= row["reward/arithmetic"] <= 1
    assert row["critic/grad_norm"] > 0


def test_the_page_of_the_recipes_names_each_of_them() -> None:
    page = (Path(__file__).parents[1] / "recipes" / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+)\.yaml\)", page)) == set(RECIPES)
