"""The rewards that a recipe knows by name, and how each is made of its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, StrictBool

from sharpen.errors import RewardError
from sharpen.registry import Registry, own_name
from sharpen.rewards.code.asserts import CodeAsserts, CodeCheck
from sharpen.rewards.code.lint import CodeLint
from sharpen.rewards.code.verifiers import CodeCompiles, CodeTests
from sharpen.rewards.execution.process import ProcessFunction
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.math.verifier import Math
from sharpen.rewards.models.model_reward import (
    ModelReward,
    ProcessModelReward,
    ProcessRewardModelSettings,
    RewardModelSettings,
)
from sharpen.rewards.overlong import OverlongSettings, SoftOverlong
from sharpen.rewards.reward import Reward
from sharpen.rewards.steps import StepReward, Total
from sharpen.rewards.text.json_schema import JsonSchema
from sharpen.rewards.text.language import Language
from sharpen.rewards.text.regex import Regex
from sharpen.rewards.text.repetition import Repetition
from sharpen.rewards.text.verifiers import Contains, ExactAnswer, Tags
from sharpen.rewards.verifier import Verifier
from sharpen.settings import Settings


@dataclass(frozen=True, slots=True)
class RewardKind:
    """A reward known by name. ``make`` gets its settings and, where it ``takes_call``, how its function is called."""

    settings: type[BaseModel]
    make: Callable[[Any, CallSettings | None], Reward]
    described_by: type
    takes_call: bool = True


def _verifier(kind: type[Verifier]) -> RewardKind:
    return RewardKind(kind, lambda verifier, call: FunctionReward(verifier, call=in_threads(kind.name, call)), kind)


def _batched(settings: type[BaseModel], kind: type[ModelReward | ProcessModelReward | SoftOverlong]) -> RewardKind:
    """A reward that scores many completions in one call."""

    def make(of_reward: Any, call: CallSettings | None) -> Reward:
        no_call(kind.name, call)
        return kind(of_reward)

    return RewardKind(settings, make, kind, takes_call=False)


class StepSettings(Settings, extra="allow"):
    """Settings of the reward `steps`; any others are those of its function."""

    function: Any
    """A step verifier, as module:function or path/to/file.py:function."""
    total: Total = "mean"
    """How the values of the steps are aggregated to the completion's reward."""
    separator: str | None = Field(None, min_length=1)
    """The text that ends a step; null: the function says where steps end."""
    turns: StrictBool = False
    """Whether the function gives one value for each turn of the model."""


def _steps(settings: StepSettings, call: CallSettings | None) -> Reward:
    named = settings.function
    function = STEP_VERIFIERS.find(named, f"reward `{STEPS}`: function") if isinstance(named, str) else named
    if not callable(function):
        raise RewardError(
            f"reward {STEPS!r} needs the setting `function`, a step verifier as module:function or "
            f"path/to/file.py:function, not {named!r}"
        )
    return StepReward(
        placed(named, function, call),
        STEPS,
        settings.model_extra,
        total=settings.total,
        separator=settings.separator,
        turns=settings.turns,
        call=call,
    )


STEPS = "steps"
STEP_VERIFIERS: Registry[Callable[..., Any]] = Registry("step verifier", {}, error=RewardError)
"""sharpen brings none: all are a user's own."""

_VERIFIERS: tuple[type[Verifier], ...] = (
    ExactAnswer,
    Contains,
    Regex,
    Tags,
    Math,
    JsonSchema,
    Language,
    Repetition,
    CodeTests,
    CodeCheck,
    CodeAsserts,
    CodeCompiles,
    CodeLint,
)

REWARDS: Registry[RewardKind] = Registry(
    "reward",
    {
        **{verifier.name: _verifier(verifier) for verifier in _VERIFIERS},
        STEPS: RewardKind(StepSettings, _steps, StepReward),
        ModelReward.name: _batched(RewardModelSettings, ModelReward),
        ProcessModelReward.name: _batched(ProcessRewardModelSettings, ProcessModelReward),
        SoftOverlong.name: _batched(OverlongSettings, SoftOverlong),
    },
    error=RewardError,
)


def describe_rewards() -> dict[str, str]:
    """The known rewards by name, each with the first line of its description."""
    return {name: (kind.described_by.__doc__ or "").strip().partition("\n")[0] for name, kind in REWARDS.items()}


def display_name(name: object) -> str:
    return name if isinstance(name, str) else str(getattr(name, "name", None) or getattr(name, "__name__", name))


def no_call(name: str, call: CallSettings | None) -> None:
    if call is not None:
        raise RewardError(f"reward {name!r}: call: only applies to functions that are called once per completion")


def in_threads(name: str, call: CallSettings | None) -> CallSettings | None:
    if call is not None and call.process:
        raise RewardError(f"reward {name!r}: call.process requires a function given as module:function")
    return call


def placed(name: object, function: Callable[..., Any], call: CallSettings | None) -> Callable[..., Any]:
    """The function, wrapped to run in its own process if ``call`` says so."""
    if call is None or not call.process:
        return function
    named = name if isinstance(name, str) else own_name(function)
    if named is None:
        raise RewardError(
            f"reward {display_name(name)!r}: call.process requires a function that another process can import: one of "
            "a module or file, not a lambda or a local function"
        )
    return ProcessFunction(named, function, call.timeout_s)
