"""Objects given in Python: saved by a name only if that gives an equal object again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

import sharpen
from sharpen.data.tasks import resolve_task, task_name
from sharpen.data.tasks.sums import Sums
from sharpen.data.tasks.words import Words
from sharpen.in_memory import ENTRY, IN_MEMORY, in_memory, saved
from sharpen.methods import METHODS, resolve_method, saved_method
from sharpen.rewards.kinds import _VERIFIERS
from sharpen.rewards.registry import Weighting, saved_reward
from tiny_runs import tiny_recipe

HERE = str(Path(__file__).resolve())


class Plain(sharpen.Verifier):
    name = "plain"
    size: float = 1.0

    def __call__(self, completion: str, **row: Any) -> float:
        return self.size


class Heavy(Plain):
    weight: float = 1.0


class Gated(Plain):
    gate: bool = True


class Secret(Plain):
    key: str = Field("none", exclude=True)


class Hidden(Plain):
    _state: int = PrivateAttr(0)

    def moved(self) -> Hidden:
        self._state = 1
        return self


class Calling(Plain):
    function: Any = None


class SecretMethod(sharpen.GRPO):
    name = "secret"
    key: str = Field("none", exclude=True)
    scale: Any = 1.0


class Tagged(Sums):
    tags: tuple[str, ...] = ()
    limit: int | None = 5
    fast: bool = False


def measure(completion: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    "verifier", [Heavy(weight=3.0), Gated(), Secret(key="k"), Hidden().moved(), Calling(function=lambda text: 1.0)]
)
def test_a_verifier_that_its_fields_do_not_give_again_stays_an_object(verifier: Any) -> None:
    assert saved_reward(verifier) == IN_MEMORY
    assert saved_reward([{"name": verifier, "weight": 0.5}]) == [{"name": IN_MEMORY, "weight": 0.5}]


@pytest.mark.parametrize("verifier", [Plain(size=2.0), Secret(size=2.0), Hidden(size=2.0)])
def test_a_verifier_that_its_fields_give_again_is_saved_by_them(verifier: Any) -> None:
    assert saved_reward(verifier) == {"name": f"{HERE}:{type(verifier).__name__}", "size": 2.0}


def test_what_an_entry_says_is_what_it_may_say_beside_its_settings() -> None:
    assert set(ENTRY) == {"name", *Weighting.model_fields}
    needed: dict[str, dict[str, Any]] = {
        "contains": {"words": ["a"]},
        "regex": {"pattern": "a"},
        "json_schema": {"schema": {"type": "object"}},
        "language": {"language": "en"},
    }
    for kind in _VERIFIERS:
        assert saved_reward(kind(**needed.get(kind.name, {})))["name"] == kind.name


def test_a_method_that_its_fields_do_not_give_again_stays_an_object() -> None:
    assert saved_method(SecretMethod(group_size=4))["name"] == f"{HERE}:SecretMethod"
    for method in (SecretMethod(key="k", group_size=6), SecretMethod(scale=lambda step: 1.0, group_size=6)):
        recorded = saved_method(method)
        assert recorded["name"] == IN_MEMORY
        assert recorded["group_size"] == 6
        assert "key" not in recorded
    for name, method_kind in METHODS.items():
        assert resolve_method(saved_method(method_kind())) == method_kind()
        assert saved_method(method_kind())["name"] == name


def test_a_task_that_a_query_does_not_give_again_has_no_name() -> None:
    assert task_name(Tagged(tags=("x", "y"))) is None
    assert task_name(Tagged(limit=None)) is None
    named = task_name(Sums(seed=3))
    assert named is not None
    assert named.startswith("sums?")
    assert resolve_task(named) == Sums(seed=3)
    assert task_name(Words) == "words"


def test_objects_among_free_settings_are_found_and_functions_there_are_no_names() -> None:
    settings = {"name": measure, "limit": measure, "a.b": {"f": measure}, "n": 3}
    recorded = saved(settings)
    assert recorded == {"name": f"{HERE}:measure", "limit": IN_MEMORY, "a.b": {"f": IN_MEMORY}, "n": 3}
    assert [path for path, _ in in_memory(recorded, settings, "s")] == ["s.limit", "s['a.b'].f"]


def test_an_engine_may_be_given_a_function(tmp_path: Path) -> None:
    engine = {"name": f"{HERE}:measure", "settings": {"f": measure, "of": {"x.y": measure}}}
    recipe = tiny_recipe(tmp_path / "run", tmp_path, "grpo", reward=f"{HERE}:measure", rollout={"engine": engine})
    assert recipe.model_dump(mode="json")["rollout"]["engine"]["settings"] == {"f": IN_MEMORY, "of": {"x.y": IN_MEMORY}}
    assert recipe.missing() == []
    assert recipe.unnamed() == {"rollout.engine.settings.f": measure, "rollout.engine.settings.of": {"x.y": measure}}
    assert IN_MEMORY in recipe.to_yaml()
