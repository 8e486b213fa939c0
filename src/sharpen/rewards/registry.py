"""Builds rewards from their specification in a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from sharpen.data.tasks import Task
from sharpen.errors import RewardError
from sharpen.in_memory import IN_MEMORY, saved
from sharpen.registry import own_name
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.function import FunctionReward, RewardFunction
from sharpen.rewards.gate import Gate
from sharpen.rewards.kinds import REWARDS, display_name, in_threads, no_call, placed
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward
from sharpen.rewards.verifier import Verifier
from sharpen.settings import Settings, explain
from sharpen.system.user_code import named_failure

RewardSpec: TypeAlias = Reward | RewardFunction | str | Mapping[str, Any] | Sequence[Any]

Checked = TypeVar("Checked", bound=BaseModel)


def resolve_reward(spec: RewardSpec, task: Task | None = None) -> Reward:
    """The reward that ``spec`` describes.

    ``spec`` is one of: a reward; a callable ``(completion, **row) -> float | None``, which may be async and may take
    ``trajectory`` (see `FunctionReward`); a class of either, which is constructed with the settings; a name (see
    `describe_rewards`); ``module:function`` or ``path/to/file.py:function``; a mapping of ``name`` (any of these),
    ``weight`` (1), ``gate``, ``call`` and settings; or a list of these, for their weighted sum. The name ``task`` is
    the verifier of ``task``, if given.

    Raises `RewardError` for an unknown name or setting, with the nearest known one, and if the import fails.
    """
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        if not spec:
            raise RewardError("the list of rewards is empty")
        return _combined([_entry(item, task) for item in spec])
    entry = _entry(spec, task)
    if entry.gate is None:
        return entry.reward if entry.weight == 1.0 else _combined([entry], name=entry.reward.name)
    if not entry.weight:
        raise RewardError(f"reward {entry.reward.name!r}: gate: there is no other reward to gate; give a list")
    return _combined([entry], name=entry.reward.name)


def saved_reward(spec: Any) -> Any:
    """What `resolve_reward` makes the same reward of, from a recipe; `IN_MEMORY` for what no import gives."""
    return saved(spec, _reward_name)


def _reward_name(kind: object) -> str | None:
    ours = (name for name, known in REWARDS.items() if known.settings is kind and known.described_by is kind)
    return next(ours, None) or own_name(kind)


class Weighting(Settings):
    """Settings common to all entries of a list of rewards."""

    weight: float | None = Field(None, strict=True)
    """The factor of the reward in the sum; null: 1, or 0 with a gate. 0: only logged."""
    gate: Gate | None = None
    """Whether the reward decides that the others count: true, a number for `at_least`, or a section; null: it does not.
    """
    call: CallSettings | None = None
    """How the function is called; null: as by the section's defaults."""

    @field_validator("gate", mode="before")
    @classmethod
    def _no_gate(cls, given: Any) -> Any:
        return None if given is False else given


@dataclass(frozen=True, slots=True)
class _Entry:
    """A reward in a list."""

    reward: Reward
    weight: float = 1.0
    gate: Gate | None = None


def _combined(entries: Sequence[_Entry], name: str = "sum") -> WeightedSum:
    gates = {place: entry.gate for place, entry in enumerate(entries) if entry.gate is not None}
    return WeightedSum([(entry.reward, entry.weight) for entry in entries], name, gates=gates)


def _entry(spec: RewardSpec, task: Task | None) -> _Entry:
    if isinstance(spec, Mapping):
        settings = {str(key): value for key, value in spec.items()}
        name = settings.pop("name", None)
        if name is None:
            raise RewardError(f"a reward needs a name: {dict(spec)}")
        name = _checked_name(name)
        common = {key: settings.pop(key) for key in Weighting.model_fields if settings.get(key) is not None}
        weighting = _build(Weighting, name if isinstance(name, str) else display_name(name), common)
        reward = _named(name, settings, weighting.call, task)
        # A gate only adds to the total if the recipe gives it a weight.
        usual = 1.0 if weighting.gate is None else 0.0
        return _Entry(reward, usual if weighting.weight is None else weighting.weight, weighting.gate)
    return _Entry(_named(_checked_name(spec), {}, None, task))


def _checked_name(name: object) -> str | Reward | Callable[..., Any]:
    if isinstance(name, str | Reward) or callable(name):
        return name
    raise RewardError(f"a reward is a function, a name, a mapping or a list of these, not {name!r}")


def _named(
    name: str | Reward | Callable[..., Any], settings: Mapping[str, Any], call: CallSettings | None, task: Task | None
) -> Reward:
    if name == "task" and task is not None:
        _no_settings(name, settings)
        return TaskReward(task, call=call)
    if isinstance(name, str) and name in REWARDS:
        return REWARDS[name].make(_build(REWARDS[name].settings, name, settings), call)
    if name == IN_MEMORY:
        raise RewardError("a reward of this recipe was given in Python and can only be used from there")
    target = REWARDS.find(name) if isinstance(name, str) else name
    if isinstance(target, type) and issubclass(target, Verifier):
        return FunctionReward(_build(target, target.name, settings), call=in_threads(target.name, call))
    if isinstance(target, type) and _makes_rewards(target):
        in_threads(display_name(name), call)
        target, settings = _made(target, settings), {}
    if isinstance(target, Reward):
        _no_settings(display_name(name), settings)
        no_call(display_name(name), call)
        return target
    if isinstance(target, Verifier):
        _no_settings(display_name(name), settings)
        return FunctionReward(target, call=in_threads(target.name, call))
    if not callable(target):
        raise RewardError(f"reward {name!r} is a {type(target).__name__}, not a function")
    return FunctionReward(placed(name, target, call), settings=settings, call=call)


def _makes_rewards(kind: type) -> bool:
    """Whether instances of a class are rewards or callable."""
    return issubclass(kind, Reward) or any("__call__" in vars(base) for base in kind.__mro__)


def _made(kind: type, settings: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(kind).bind(**settings)
    except TypeError as error:
        raise RewardError(f"reward {kind.__name__!r} cannot be constructed with these settings: {error}") from error
    with named_failure(f"reward {kind.__name__!r}: its construction", RewardError):
        return kind(**settings)


def _no_settings(name: str, settings: Mapping[str, Any]) -> None:
    if settings:
        raise RewardError(f"reward {name!r} is already constructed and takes no settings: {', '.join(settings)}")


def _build(kind: type[Checked], name: str, settings: Mapping[str, Any]) -> Checked:
    try:
        return kind(**settings)
    except ValidationError as error:
        raise RewardError(f"reward {name!r}: {'; '.join(explain(error, kind))}") from error
