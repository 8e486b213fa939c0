"""The settings of a run. A recipe is a YAML file of exactly these names; an unknown one is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Annotated, Any

from omegaconf import OmegaConf
from pydantic import Field, PlainSerializer, ValidationError, field_validator, model_validator

from sharpen.data.settings import DataSettings
from sharpen.evaluation.settings import EvaluationSettings
from sharpen.in_memory import IN_MEMORY, OF_REWARDS, in_memory
from sharpen.methods import Method, resolve_method, saved_method
from sharpen.models.settings import ModelSettings
from sharpen.recipe.effects import EFFECTS
from sharpen.recipe.sources import check_reward_entries, check_sources
from sharpen.rewards.checking.settings import RewardCheckSettings
from sharpen.rewards.registry import saved_reward
from sharpen.rollout.settings import RolloutSettings
from sharpen.runs.named_loggers import WHERE
from sharpen.settings import PathName, Settings, passed_on
from sharpen.training.settings import CheckpointSettings, LogSettings, OptimizerSettings, TrainingSettings


class Recipe(Settings):
    """Everything that decides what a run does."""

    run: PathName
    """The folder that the run writes; it must not hold a run yet."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Determines the order of the data and all random numbers of the sampling."""
    model: ModelSettings
    """A section, or just the path: `model: models/mine`."""
    method: Annotated[Method, PlainSerializer(saved_method)]
    """A section with a `name`, or just the name: `method: sft` (`sharpen methods` lists them)."""
    data: DataSettings
    reward: Annotated[Any, PlainSerializer(saved_reward), OF_REWARDS] = None
    """A name, a mapping with settings, or a list of these (`sharpen rewards` lists them). A task brings its own."""
    reward_check: RewardCheckSettings = RewardCheckSettings()
    rollout: RolloutSettings = RolloutSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()

    effects = EFFECTS

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        try:
            return resolve_method(value)
        except ValueError as error:
            idle = passed_on(error.__cause__) if isinstance(error.__cause__, ValidationError) else None
            # The message begins with the name of this field.
            raise idle or ValueError(str(error).removeprefix("method ")) from error

    @field_validator("reward", mode="before")
    @classmethod
    def _reward_entries(cls, value: Any) -> Any:
        check_reward_entries(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.evaluation.every and not self.has_held_out:
            raise ValueError(f"evaluation.every needs held-out prompts: give {self.data.held_out_setting}")
        _, minibatches = self.method.passes_and_minibatches
        if self.training.prompts_per_step < minibatches:
            raise ValueError(
                f"training.prompts_per_step is {self.training.prompts_per_step}, too few for {minibatches} minibatches"
            )
        mixed = self.method.mixed()
        if mixed is not None and mixed.prompts_per_step < minibatches:
            raise ValueError(
                f"the second source of method {self.method.name} gives {mixed.prompts_per_step} prompts per step, too "
                f"few for {minibatches} minibatches"
            )
        if mixed is not None and any(c.target is not None for c in mixed.method.coefficients().values()):
            raise ValueError(
                f"the second source of method {self.method.name} cannot adapt a coefficient: only the method's own are "
                "measured"
            )
        if self.rollout.lag and not self.method.corrects_stale:
            raise ValueError(
                f"rollout.lag is {self.rollout.lag}, and method {self.method.name} does not correct for tokens that an "
                "older version of the policy drew: set method.tis_cap (2, say), or method.old: rollout, where it has "
                "them"
            )
        check_sources(self)
        return self

    @property
    def has_held_out(self) -> bool:
        """Whether there is anything to measure on."""
        return any(data.task is not None or data.held_out is not None for data in self.data.by_source().values())

    @property
    def conversational(self) -> bool:
        """Whether trajectories may have several turns."""
        return self.rollout.turns is not None or any(one.turns is not None for one in self.data.sources.values())

    def tree(self) -> dict[str, Any]:
        """All settings as nested mappings, in which what was given as Python objects stays so."""
        return _tree(self)

    def unnamed(self, saved: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings with Python objects that a saved recipe cannot name, by their paths such as ``data.train``.

        With ``saved``, those that this saved recipe of the same settings does not name.
        """
        tree = self.tree()
        recorded = self.model_dump(mode="json") if saved is None else saved
        paths = [path.partition("[")[0] for path, _ in in_memory(recorded, tree)]
        return {path: reduce(getitem, path.split("."), tree) for path in paths}

    def missing(self) -> list[str]:
        """What a run needs that was a Python object when this recipe was saved, and is not given now."""
        return [path for path in self._placeholders() if not path.startswith(WHERE)]

    def missing_loggers(self) -> list[str]:
        """The loggers that were Python objects when this recipe was saved, and are not given now."""
        return [path for path in self._placeholders() if path.startswith(WHERE)]

    def _placeholders(self) -> list[str]:
        return [path for path, given in in_memory(self.model_dump(mode="json"), self.tree()) if given == IN_MEMORY]

    def to_yaml(self) -> str:
        return OmegaConf.to_yaml(OmegaConf.create(_literal(self.model_dump(mode="json"))))


def _tree(settings: Settings) -> dict[str, Any]:
    found = {name: getattr(settings, name) for name in type(settings).model_fields}
    # What has no type of its own may be any object, a task for example, and is not a section of settings.
    return {
        name: value if type(settings).model_fields[name].annotation is Any else _sections(value)
        for name, value in found.items()
    }


def _sections(value: Any) -> Any:
    if isinstance(value, Settings) and not isinstance(value, Method):
        return _tree(value)
    return {key: _sections(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _literal(value: Any) -> Any:
    """Escape ``${`` and any backslashes before it, so that OmegaConf does not interpolate it on reload."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
