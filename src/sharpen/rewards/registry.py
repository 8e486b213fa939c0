"""From what a recipe says about a reward to the reward."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from sharpen.errors import RewardError
from sharpen.rewards.code import CodeCompiles, CodeTests
from sharpen.rewards.code_asserts import CodeAsserts, CodeCheck
from sharpen.rewards.code_lint import CodeLint
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.json_schema import JsonSchema
from sharpen.rewards.language import Language
from sharpen.rewards.math import Math
from sharpen.rewards.model import ModelReward, ModelSettings, ProcessModelReward, StepModelSettings
from sharpen.rewards.overlong import OverlongSettings, SoftOverlong
from sharpen.rewards.repetition import Repetition
from sharpen.rewards.reward import Reward
from sharpen.rewards.steps import StepReward
from sharpen.rewards.verifier import Verifier
from sharpen.rewards.verifiers import Contains, ExactAnswer, Regex, Tags
from sharpen.suggest import did_you_mean

RewardSpec: TypeAlias = Reward | Callable[..., float | None] | str | Mapping[str, Any] | Sequence[Any]

Checked = TypeVar("Checked", bound=BaseModel)

_TEXT: tuple[type[Verifier], ...] = (ExactAnswer, Contains, Regex, Tags, Math, JsonSchema, Language, Repetition)
_CODE: tuple[type[Verifier], ...] = (CodeTests, CodeCheck, CodeAsserts, CodeCompiles, CodeLint)

VERIFIERS: dict[str, type[Verifier]] = {verifier.name: verifier for verifier in (*_TEXT, *_CODE)}

MODELS: dict[str, tuple[type[ModelSettings], Callable[[Any], Reward]]] = {
    ModelReward.name: (ModelSettings, ModelReward),
    ProcessModelReward.name: (StepModelSettings, ProcessModelReward),
}
OF_TOKENS: dict[str, tuple[type[BaseModel], Callable[[Any], Reward]]] = {
    SoftOverlong.name: (OverlongSettings, SoftOverlong),
}
"""Rewards that read a completion's tokens and not its text."""
STEPS = "steps"
"""The name of a step verifier as a reward; the setting ``function`` says which."""


def describe_rewards() -> dict[str, str]:
    """The rewards known by name, each with the first line of its description."""
    kinds = {**VERIFIERS, STEPS: StepReward, **{name: kind for name, (_, kind) in MODELS.items()}}
    kinds |= {name: kind for name, (_, kind) in OF_TOKENS.items()}
    return {name: (kind.__doc__ or "").strip().partition("\n")[0] for name, kind in kinds.items()}


def resolve_reward(spec: RewardSpec) -> Reward:
    """The reward that ``spec`` describes.

    ``spec`` is one of: a reward; a function ``(completion, **row) -> float | None``; a name
    (`describe_rewards`); ``module:function`` or ``path/to/file.py:function``; a mapping of ``name`` (any of
    these texts), ``weight`` (1) and settings; or a list of these, which is their weighted sum.

    Raises `RewardError` for an unknown name or setting, with the nearest known one, and if the import fails.
    """
    if isinstance(spec, (str, Mapping)):
        reward, weight = _weighted(spec)
        return reward if weight == 1.0 else WeightedSum([(reward, weight)], name=reward.name)
    if isinstance(spec, Sequence):
        if not spec:
            raise RewardError("the list of rewards is empty")
        return WeightedSum([_weighted(item) for item in spec])
    return _weighted(spec)[0]


def _weighted(spec: RewardSpec) -> tuple[Reward, float]:
    if isinstance(spec, Reward):
        return spec, 1.0
    if isinstance(spec, str):
        return _named(spec, {}), 1.0
    if isinstance(spec, Mapping):
        settings = {str(key): value for key, value in spec.items()}
        name, weight = settings.pop("name", None), settings.pop("weight", 1.0)
        if not isinstance(name, str):
            raise RewardError(f"a reward needs a name, this one has none: {dict(spec)}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise RewardError(f"the weight of reward {name!r} must be a number, not {weight!r}")
        return _named(name, settings), float(weight)
    if callable(spec):
        return FunctionReward(spec), 1.0
    raise RewardError(f"a reward is a function, a name, a mapping or a list of these, not {spec!r}")


def _named(name: str, settings: Mapping[str, Any]) -> Reward:
    if name in VERIFIERS:
        return FunctionReward(_build(VERIFIERS[name], name, settings))
    if name in MODELS:
        of_model, kind = MODELS[name]
        return kind(_build(of_model, name, settings))
    if name in OF_TOKENS:
        of_tokens, kind = OF_TOKENS[name]
        return kind(_build(of_tokens, name, settings))
    if name == STEPS:
        return _step_reward(settings)
    if ":" not in name:
        known = [*VERIFIERS, STEPS, *MODELS, *OF_TOKENS]
        raise RewardError(
            f"there is no reward {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}. "
            "A function of your own is written module:function or path/to/file.py:function"
        )
    target = _load(name)
    if isinstance(target, type) and issubclass(target, Verifier):
        return FunctionReward(_build(target, target.name, settings))
    if isinstance(target, (Reward, Verifier)) and settings:
        raise RewardError(f"reward {name!r} is already set up and takes no settings: {', '.join(settings)}")
    if isinstance(target, Reward):
        return target
    if not callable(target):
        raise RewardError(f"reward {name!r} is a {type(target).__name__}, not a function")
    return FunctionReward(target, settings=settings)


def _step_reward(settings: Mapping[str, Any]) -> Reward:
    rest = dict(settings)
    function, total, separator = rest.pop("function", None), rest.pop("total", "mean"), rest.pop("separator", None)
    if isinstance(function, str) and ":" in function:
        function = _load(function)
    if not callable(function):
        raise RewardError(
            f"reward {STEPS!r} needs the setting `function`, a step verifier as module:function or "
            f"path/to/file.py:function, not {function!r}"
        )
    if separator is not None and not isinstance(separator, str):
        raise RewardError(f"reward {STEPS!r}: the separator must be a text, not {separator!r}")
    return StepReward(function, STEPS, rest, total=total, separator=separator)


def _build(kind: type[Checked], name: str, settings: Mapping[str, Any]) -> Checked:
    try:
        return kind(**settings)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = [field.alias or name for name, field in kind.model_fields.items()]
                problems.append(f"unknown setting {field!r}.{did_you_mean(field, known)} Known: {', '.join(known)}")
            else:
                problems.append(f"{field}: {problem['msg']}" if field else problem["msg"])
        raise RewardError(f"reward {name!r}: {'; '.join(problems)}") from error


def _load(name: str) -> Any:
    source, _, attribute = name.rpartition(":")
    try:
        module = _load_file(Path(source)) if source.endswith(".py") else _load_module(source)
    except (ImportError, OSError, SyntaxError, ValueError) as error:
        raise RewardError(
            f"reward {name!r}: importing {source!r} failed with {type(error).__name__}: {error}"
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(module) if not n.startswith("_")]
            raise RewardError(f"reward {name!r}: {source!r} has no {attribute!r}.{did_you_mean(attribute, known)}")
        found = getattr(found, part)
    return found


def _load_module(source: str) -> ModuleType:
    # The installed command does not search the folder it is called in, where people keep their functions.
    with _importable(Path.cwd()):
        return importlib.import_module(source)


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importable(path.parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
