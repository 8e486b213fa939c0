"""A setting that names something is not empty: an error at once that names the field."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from sharpen.errors import RecipeError, RewardError
from sharpen.methods import METHODS
from sharpen.recipe.loading import make_recipe
from sharpen.recipe.schema import Recipe
from sharpen.rewards.checking.settings import RewardCheckSettings
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.registry import resolve_reward
from tiny_runs import merge

SMALLEST: dict[str, Any] = {"run": "r", "model": "m", "method": "grpo", "data": {"task": "arithmetic"}}

FREE_TEXTS = {"DataSettings.system", "SourceSettings.system", "Regex.pattern"}
"""What may be empty."""


def classes() -> Iterator[type[BaseModel]]:
    """Every class of settings that a recipe can hold."""
    found: dict[type[BaseModel], None] = {}
    left: list[type[BaseModel]] = [Recipe, CallSettings, RewardCheckSettings, *METHODS.values()]
    left += [kind.settings for kind in REWARDS.values()]
    while left:
        kind = left.pop()
        if kind in found:
            continue
        found[kind] = None
        for field in kind.model_fields.values():
            left += [t for t in types_in(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
    return iter(found)


def types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from types_in(inner)


def texts() -> list[Any]:
    """Each field that takes a text, or several, with the value that is empty."""
    found = []
    for kind in classes():
        for name, field in kind.model_fields.items():
            inner = list(types_in(field.annotation))
            several = any(get_args(t)[:1] and str(t).startswith("tuple[") and str in types_in(t) for t in inner)
            if str in inner or several:
                found.append(pytest.param(kind, field.alias or name, several, id=f"{kind.__name__}.{name}"))
    return found


@pytest.mark.parametrize(("kind", "name", "several"), texts())
def test_no_name_is_empty(kind: type[BaseModel], name: str, several: bool) -> None:
    if f"{kind.__name__}.{name}" in FREE_TEXTS:
        return
    with pytest.raises(ValidationError) as error:
        kind.model_validate({name: [""] if several else ""})
    assert any(problem["loc"][:1] == (name,) for problem in error.value.errors())


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
@pytest.mark.parametrize(
    "name",
    [
        "run",
        "model",
        "model.path",
        "model.device",
        "data.train",
        "data.task",
        "data.held_out",
        "data.demonstrations",
        "data.mixed",
        "rollout.engine.name",
        "rollout.turns",
        "checkpoint.best",
        "method",
        "reward",
    ],
)
def test_the_message_names_the_setting(name: str, empty: str) -> None:
    changes: Any = empty
    for part in reversed(name.split(".")):
        changes = {part: changes}
    tree = merge({**SMALLEST, "model": {"path": "m"}}, changes)
    with pytest.raises(RecipeError) as error:
        make_recipe(tree)
    place = "model.path" if name == "model" else name
    reason = "unknown method" if name == "method" else "it is empty: name something"
    assert str(error.value).startswith(f"recipe: `{place}`: {reason}")


def test_a_name_within_a_method_or_a_list_of_rewards() -> None:
    with pytest.raises(RecipeError, match=r"`method`: ppo: `critic_path`: it is empty"):
        make_recipe(SMALLEST | {"method": {"name": "ppo", "critic_path": ""}})
    with pytest.raises(RecipeError, match=r"`method`: grpo: `kl.path`: it is empty"):
        make_recipe(SMALLEST | {"method": {"name": "grpo", "kl": {"path": " "}}})
    for rewards in (["task", ""], ["task", {"name": " "}]):
        with pytest.raises(RecipeError, match=r"`reward`: .*it is empty"):
            make_recipe(SMALLEST | {"reward": rewards})
    with pytest.raises(RewardError, match=r"reward 'exact_answer': `column`: it is empty"):
        resolve_reward({"name": "exact_answer", "column": ""})


def test_the_working_directory_can_be_named(tmp_path: Path) -> None:
    assert make_recipe(SMALLEST | {"run": "."}).run == Path(".")
