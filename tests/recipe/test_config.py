"""A recipe: read, overridden, and refused with a message that helps."""

import math
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RecipeError
from sharpen.methods import GRPO, SFT
from sharpen.models.settings import LoraSettings, ModelSettings
from sharpen.recipe.loading import load_recipe, make_recipe
from sharpen.recipe.schema import Recipe

YAML = """
run: runs/x
model: models/tiny
method: {name: grpo, group_size: 4, beta: 0.04}
data: {task: arithmetic}
training: {steps: 3}
"""
SMALLEST: dict[str, Any] = {"run": "r", "model": "m", "method": "grpo", "data": {"task": "arithmetic"}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(YAML)
    return path


def test_what_is_written_is_read_and_the_rest_has_its_default(recipe: Path) -> None:
    found = load_recipe(recipe)
    assert (found.run, found.model.path, found.training.steps) == (Path("runs/x"), "models/tiny", 3)
    assert found.method == GRPO(group_size=4, beta=0.04)
    assert (found.method.eps_low, found.method.ddof, found.seed) == (0.2, 1, 0)
    assert (found.rollout.temperature, found.rollout.top_p, found.optimizer.max_grad_norm) == (1.0, 1.0, 1.0)


def test_overrides_reach_every_level_and_win(recipe: Path) -> None:
    found = load_recipe(
        recipe,
        ["training.steps=9", "method.beta=0", "rollout.stop=['a','b']", "optimizer.learning_rate=1e-3", "seed=5"],
    )
    assert (found.training.steps, found.method.beta, found.seed) == (9, 0.0, 5)
    assert found.rollout.stop == ("a", "b")
    assert found.optimizer.learning_rate == 0.001
    assert load_recipe(recipe, ["optimizer.max_grad_norm=null"]).optimizer.max_grad_norm is None


def test_an_override_finds_the_section_of_what_is_named_by_a_word(recipe: Path) -> None:
    found = load_recipe(recipe, ["model.lora.rank=8", "model.compute_dtype=bfloat16"])
    assert (found.model.path, found.model.compute_dtype) == ("models/tiny", "bfloat16")
    assert found.model.lora == LoraSettings(rank=8, alpha=32, targets="all-linear")
    assert load_recipe(recipe, ["model.lora={targets: [q_proj, v_proj]}"]).model.lora == LoraSettings(
        rank=16, alpha=32, targets=("q_proj", "v_proj")
    )
    assert load_recipe(recipe, ["model=models/other"]).model == ModelSettings(path="models/other")
    assert load_recipe(recipe).model == ModelSettings(path="models/tiny", lora=None)


def test_a_recipe_comes_back_from_its_own_yaml(recipe: Path, tmp_path: Path) -> None:
    changes = [
        "rollout.stop=['\"', 'a: b', '#']",
        "optimizer.learning_rate=3e-6",
        "reward=[exact_answer,{name: x, weight: 2}]",
    ]
    found = load_recipe(recipe, changes)
    again = tmp_path / "again.yaml"
    again.write_text(found.to_yaml())
    assert load_recipe(again) == found
    sft = make_recipe({**SMALLEST, "method": SFT(reduction="per_sequence")})
    again.write_text(sft.to_yaml())
    assert load_recipe(again) == sft


@pytest.mark.parametrize(
    "text", ["${seed}", r"\${seed}", r"\\${seed} \\", "${", "$ {a}", r"\w+ \\ $", "???", "null", "1e3"]
)
def test_a_text_comes_back_from_its_own_yaml_as_it_was(text: str, tmp_path: Path) -> None:
    """Where the text was written, what looks like a reference to another setting was none."""
    data = {"task": "words", "system": text, "chat_template_kwargs": {"a": [text]}}
    found = make_recipe({**SMALLEST, "data": data, "reward": {"name": "regex", "pattern": text}})
    (tmp_path / "again.yaml").write_text(found.to_yaml())
    again = load_recipe(tmp_path / "again.yaml")
    assert again == found
    assert again.data.system == text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stepz=1", "unknown setting `training.stepz`. Did you mean `training.steps`?"),
        ("trainin.steps=1", "unknown setting `trainin`. Did you mean `training`?"),
        ("rollout.xyzzy=1", "unknown setting `rollout.xyzzy`. Known: max_new_tokens, temperature"),
        ("method.group_siz=1", "`method`: grpo: unknown setting `group_siz`. Did you mean `group_size`?"),
        ("method.name=gpro", "unknown method `gpro`. Did you mean `grpo`?"),
        ("training.steps=0", "`training.steps`: Input should be greater than or equal to 1 (given: 0)"),
        ("training.steps=many", "`training.steps`: Input should be a valid integer"),
        ("method.eps_low=-0.1", "`eps_low`: Input should be greater than 0 (given: -0.1)"),
        ("method.group_size=1", "group_size 1 leaves every advantage at 0"),
        ("optimizer.learning_rate=.nan", "`optimizer.learning_rate`: Input should be a finite number"),
        ("rollout.temperature=0", "`rollout.temperature`: Input should be greater than or equal to 0.0001"),
        ("rollout.top_p=0.9", "training needs top_p=1, top_k=0, min_p=0"),
        ("evaluation={every: 1, k: [1, 8]}", "pass@8 needs n >= 8 completions per prompt, n is 1"),
        ("evaluation.k=[]", "`evaluation.k`: Tuple should have at least 1 item"),
        ("method.minibatches=9", "training.prompts_per_step is 8, too few for 9 minibatches"),
        ("checkpoint.best=pass@1", "`checkpoint.best` has no effect: only with evaluation.every"),
        ("data.train=x.jsonl", "give either `task` (a name) or `train`"),
        (
            "data.held_out=x.jsonl",
            "`data.held_out` has no effect: only with `train`, as a task has its own",
        ),
        ("seed.x=1", "`seed`: Input should be a valid integer"),
        ("steps", "'steps': settings are overridden as KEY=VALUE"),
        ("training=[", "training: not YAML: line 1, column 2"),
        ("model=", "`model"),
        ("seed=-1", "`seed`: Input should be greater than or equal to 0 (given: -1)"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe, [override])
    assert str(error.value).startswith(f"{recipe}: ")
    assert message in str(error.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe({**SMALLEST, "trainin": {}, "seed": -1, "rollout": {"max_new_tokens": 0}}, where="train()")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("train(): ") for line in lines)


@pytest.mark.parametrize("left_out", ["run", "model", "method", "data"])
def test_what_is_missing_is_named(left_out: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe: `{left_out}`: Field required"):
        make_recipe({key: value for key, value in SMALLEST.items() if key != left_out})


def test_a_method_that_needs_a_reward_gets_one() -> None:
    rows = {**SMALLEST, "data": {"train": "x.jsonl"}}
    with pytest.raises(RecipeError, match="method grpo needs a reward: give `reward`"):
        make_recipe(rows)
    assert make_recipe({**rows, "method": "sft"}).reward is None
    assert make_recipe({**rows, "reward": "exact_answer"}).reward == "exact_answer"
    with pytest.raises(RecipeError, match=r"evaluation\.every needs held-out prompts: give data\.held_out"):
        make_recipe({**rows, "method": "sft", "evaluation": {"every": 1}})


def test_what_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such recipe"):
        load_recipe(tmp_path / "nowhere.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1, 2")
    with pytest.raises(RecipeError, match=r"broken\.yaml: "):
        load_recipe(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(RecipeError, match=r"broken\.yaml: a recipe is a mapping of settings, such as"):
        load_recipe(path)
    path.write_text("7")
    with pytest.raises(RecipeError, match=r"broken\.yaml: "):
        load_recipe(path)
    path.write_text("")
    with pytest.raises(RecipeError, match=r"broken\.yaml: `run`: Field required"):
        load_recipe(path)


def test_settings_do_not_change_after_they_were_checked() -> None:
    recipe: Recipe = make_recipe(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]
    assert math.isclose(recipe.optimizer.eps, 1e-8)
