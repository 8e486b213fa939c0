"""Every number that a user can set has a range, and nothing else is taken for a number."""

from collections.abc import Iterator
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError
from test_names import classes, types_in

from sharpen.data.tasks import TASKS
from sharpen.methods import GRPO
from sharpen.recipe.schema import Recipe
from sharpen.rewards.registry import Weighting
from sharpen.settings import Settings
from sharpen.training.settings import OptimizerSettings, TrainingSettings

ANY = {
    "EvaluationSettings.threshold",
    "RFT.threshold",
    "OnlineRFT.threshold",
    "Regex.value",
    "Gate.at_least",
    "Gate.otherwise",
    "Weighting.weight",
    "RolloutSettings.top_p",
    "RolloutSettings.top_k",
    "RolloutSettings.min_p",
}
"""Rewards and their weights, which may be any number, and what only has its default."""
BOUNDS = (annotated_types.Gt, annotated_types.Ge, annotated_types.Lt, annotated_types.Le)


def numbers() -> Iterator[Any]:
    """Each field that is a number, or holds several."""
    for kind in dict.fromkeys((*classes(), Weighting, *TASKS.values())):
        for name, field in kind.model_fields.items():
            if {int, float} & set(types_in(field.annotation)):
                yield pytest.param(kind, name, id=f"{kind.__name__}.{name}")


def bounds(kind: type[BaseModel], name: str) -> list[Any]:
    field = kind.model_fields[name]
    held = [
        field.metadata,
        *(get_args(part)[1:] for part in types_in(field.annotation) if hasattr(part, "__metadata__")),
    ]
    flat = [one for part in held for one in part]
    return [one for found in flat for one in (found, *getattr(found, "metadata", ())) if isinstance(one, BOUNDS)]


@pytest.mark.parametrize(("kind", "name"), numbers())
def test_a_number_has_a_range(kind: type[BaseModel], name: str) -> None:
    if f"{kind.__name__}.{name}" in ANY or "Literal" in str(kind.model_fields[name].annotation):
        return
    assert bounds(kind, name), f"{kind.__name__}.{name} may be any number"


@pytest.mark.parametrize("value", [True, 10**400, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("kind", "name"), numbers())
def test_what_is_no_number_in_any_range(kind: type[BaseModel], name: str, value: object) -> None:
    field = kind.model_fields[name]
    several = str(field.annotation).startswith("tuple")
    if bool in types_in(field.annotation):
        return
    with pytest.raises(ValidationError) as error:
        kind.model_validate({field.alias or name: [value, value] if several else value})
    assert any(problem["loc"][:1] == (field.alias or name,) for problem in error.value.errors())


def test_the_ends_of_a_range() -> None:
    assert OptimizerSettings(betas=(0.0, 0.999999)).betas == (0.0, 0.999999)
    assert GRPO(eps_low=1.0).eps_low == 1.0
    assert TrainingSettings(steps=2**63 - 1).steps == 2**63 - 1
    for kind, given in (
        (OptimizerSettings, {"betas": (0.9, 1.0)}),
        (OptimizerSettings, {"betas": (-1e-9, 0.9)}),
        (GRPO, {"eps_low": 1.0000001}),
        (TrainingSettings, {"steps": 2**63}),
    ):
        with pytest.raises(ValidationError):
            kind.model_validate(given)


def test_a_number_is_not_true_or_false() -> None:
    for value in (0, 1, 1.0):
        with pytest.raises(ValidationError, match="write true or false, not"):
            TrainingSettings.model_validate({"shared_prompt": value})
    # As a task's parameters are written.
    assert TrainingSettings.model_validate({"shared_prompt": "false"}).shared_prompt is False


def test_settings_of_a_users_own_are_checked_too() -> None:
    class Mine(Settings):
        count: int = 1
        several: tuple[float, ...] = ()
        either: bool | int = 1

    assert Mine(several=[1, 2.5]).several == (1.0, 2.5)  # type: ignore[arg-type]
    assert Mine(either=True).either is True
    for given in ({"count": True}, {"several": [1.0, False]}, {"several": [1e39]}, {"count": 2**63}):
        with pytest.raises(ValidationError):
            Mine.model_validate(given)


def test_the_schema_says_the_range() -> None:
    betas = Recipe.model_json_schema()["$defs"]["OptimizerSettings"]["properties"]["betas"]
    assert [(one["minimum"], one["exclusiveMaximum"]) for one in betas["prefixItems"]] == [(0, 1), (0, 1)]
