"""The settings of a run. A recipe is a YAML file of exactly these names; an unknown one is an error."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, JsonValue, SerializeAsAny, ValidationError, field_validator, model_validator
from yaml import YAMLError

from sharpen.errors import RecipeError, RewardError
from sharpen.methods import Method, resolve_method
from sharpen.models.dtype import AskedDtype
from sharpen.settings import Settings
from sharpen.suggest import did_you_mean

IN_MEMORY = "<given in Python>"
"""Stands in a saved recipe for rows or a reward that were given as Python objects."""


class LoraSettings(Settings):
    """There is no dropout: sampling and training have to see the same distribution."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1, description="the update counts alpha / rank times")
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """The linear layers that get an adapter, by the end of their names. The head of a language model never does."""

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError("give at least one layer, or all-linear")
        return targets


class ModelSettings(Settings):
    path: str = Field(description="a local Hugging Face folder, or the id of a model on the hub")
    compute_dtype: AskedDtype = "float32"
    """Matrix products run in this type; weights, gradients and optimizer state stay in float32. ``auto``: bfloat16
    where the processor or GPU has instructions for it, else float32."""
    gradient_checkpointing: bool = False
    compiled: bool = Field(True, description="on a GPU: fuse a layer's small operations, half a minute at the start")
    device: str = Field("auto", description="auto: the GPU where there is one, else the CPU")
    lora: LoraSettings | None = Field(None, description="train an adapter of low rank instead of all weights")


class DataSettings(Settings):
    """Either a task by name, which brings prompts, a held-out split and its own verifier, or data of your own."""

    task: str | None = None
    train: str | None = None
    held_out: str | None = None
    chat: bool = Field(False, description="wrap a plain text prompt as a user message")
    system: str | None = None
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    overlong: Literal["error", "drop"] = "error"
    step_separator: str | None = Field(None, min_length=1)
    """What ends a step in a completion whose steps are marked."""
    demonstrations: str | None = None
    """What a reward model's scores are centred on."""

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if self.task is not None and self.held_out is not None:
            raise ValueError("a task has held-out problems of its own: leave out `held_out`, or give `train` instead")
        if (self.task is None) == (self.train is None):
            raise ValueError("give either `task` (a name) or `train` (a file or data set)")
        return self


class RolloutSettings(Settings):
    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, gt=0)
    stop: tuple[str, ...] = ()
    max_sequences: int = Field(512, ge=1, description="completions that are decoded side by side")
    max_reward_failures: float = Field(0.1, ge=0, le=1)
    """The share of samples in a step whose reward may raise, or take too long, before the run stops."""

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @model_validator(mode="after")
    def _untruncated(self) -> RolloutSettings:
        if (self.top_p, self.top_k, self.min_p) != (1.0, 0, 0.0):
            raise ValueError(
                "training needs top_p=1, top_k=0, min_p=0: a policy gradient is undefined on a truncated "
                "distribution. Use `evaluation.top_p` and so on to evaluate with truncation"
            )
        return self


class OptimizerSettings(Settings):
    learning_rate: float = Field(1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    min_ratio: float = Field(0.0, ge=0, le=1, description="the decay ends at this share of learning_rate")
    max_grad_norm: float | None = Field(1.0, gt=0)


class TrainingSettings(Settings):
    steps: int = Field(100, ge=1, description="rollouts, or batches of demonstrations")
    prompts_per_step: int = Field(8, ge=1)
    tokens_per_microbatch: int | None = Field(
        None, ge=1, description="bounds memory; null: by the model and its device"
    )
    """Never changes the gradient."""
    shared_prompt: bool = Field(True, description="compute a prompt once for its group, where proven exact")


class EvaluationSettings(Settings):
    every: int = Field(0, ge=0, description="steps between evaluations on held-out prompts; 0: never")
    prompts: int = Field(128, ge=1)
    n: int = Field(1, ge=1, description="completions drawn per prompt")
    k: tuple[int, ...] = (1,)
    threshold: float = Field(1.0, description="a completion is right when its reward is at least this")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)

    @field_validator("k")
    @classmethod
    def _positive(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k or min(k) < 1:
            raise ValueError("k needs at least one value, each 1 or more")
        return k

    @model_validator(mode="after")
    def _enough_draws(self) -> EvaluationSettings:
        if max(self.k) > self.n:
            raise ValueError(f"pass@{max(self.k)} needs n >= {max(self.k)} completions per prompt, n is {self.n}")
        return self


class CheckpointSettings(Settings):
    every: int = Field(0, ge=0, description="steps between checkpoints; 0: only at the end")
    every_minutes: float = Field(0.0, ge=0, description="also where the last one is so many minutes ago; 0: never")
    keep: int = Field(2, ge=1, description="how many of the latest are kept")
    best: str | None = Field(None, description="also keep the best by this held-out measure, e.g. pass@1")
    grace_s: float | None = Field(30.0, gt=0, description="null: no limit")
    """After SIGTERM or SIGHUP, seconds within which the present step has to end, so that its checkpoint is written.
    Then the process ends."""


class LogSettings(Settings):
    samples_every: int = Field(1, ge=0, description="steps between samples written to Parquet; 0: never")
    tensorboard: bool = False
    wandb: str | None = Field(None, description="name of the Weights & Biases project")
    trackio: str | None = Field(None, description="name of the trackio project")


class RewardCheckSettings(Settings):
    """What `sharpen reward check` does with the reward; a run itself does not read it."""

    rows: int = Field(100, ge=1, description="rows whose right and wrong answers are tried, evenly spaced")
    cheat_rows: int = Field(25, ge=1, description="rows of these on which the cheats are tried")
    reference: str | None = Field(None, description="the column of completions that ought to get a full reward")
    allow: tuple[str, ...] = Field((), description="cheats that may pass")
    timeout_s: float = Field(10.0, gt=0, description="after so long without an answer, a call of the reward is ended")

    @field_validator("allow")
    @classmethod
    def _known(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        if not allow:
            return allow
        # Rewards know of models, and these of recipes, so theirs are the modules that are read later.
        from sharpen.rewards.checking import refuse_unknown

        try:
            refuse_unknown(allow)
        except RewardError as error:
            raise ValueError(str(error)) from error
        return allow


RewardSpec = str | dict[str, Any]


class Recipe(Settings):
    """Everything that decides what a run does."""

    run: Path = Field(description="the folder that the run writes")
    seed: int = Field(0, ge=0, lt=2**63)
    model: ModelSettings
    method: SerializeAsAny[Method]
    data: DataSettings
    reward: RewardSpec | tuple[RewardSpec, ...] | None = None
    reward_check: RewardCheckSettings = RewardCheckSettings()
    rollout: RolloutSettings = RolloutSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        return resolve_method(value)

    @field_validator("reward", mode="before")
    @classmethod
    def _reward_entries(cls, value: Any) -> Any:
        for entry in value if isinstance(value, list | tuple) else () if value is None else (value,):
            if not isinstance(entry, str | Mapping):
                raise ValueError(
                    "a reward is a name, a mapping with a `name` or a list of these, and in Python also a function, "
                    f"not {entry!r}"
                )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.evaluation.every and self.data.task is None and self.data.held_out is None:
            raise ValueError("evaluation.every needs held-out prompts: give data.held_out")
        if self.checkpoint.best is not None and not self.evaluation.every:
            raise ValueError("checkpoint.best needs evaluation.every")
        minibatches = self.method.passes_and_minibatches[1]
        if self.training.prompts_per_step < minibatches:
            raise ValueError(
                f"training.prompts_per_step is {self.training.prompts_per_step}, too few for {minibatches} minibatches"
            )
        if self.data.task is None and self.method.needs_reward and self.reward is None:
            raise ValueError(f"method {self.method.name} needs a reward: give `reward`")
        return self

    def to_yaml(self) -> str:
        return OmegaConf.to_yaml(OmegaConf.create(_literal(self.model_dump(mode="json"))))


def _literal(value: Any) -> Any:
    """Texts so that ``${``, and what stands before it, is not taken for a reference when they are read again."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key.sub=value`` overrides.

    Raises:
        RecipeError: naming the file and the key, with the nearest known key where one is unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe")
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise RecipeError(f"{path}: a recipe is a mapping of settings, this is a list")
        # So that an override of one of their settings finds a section to go to.
        for section, named in (("method", "name"), ("model", "path")):
            if isinstance(loaded.get(section), str):
                loaded[section] = {named: loaded[section]}
        tree = OmegaConf.to_container(OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides))), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise RecipeError(f"{path}: {error}") from error
    assert isinstance(tree, dict)
    return make_recipe({str(k): v for k, v in tree.items()}, where=str(path))


def make_recipe(tree: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a tree of settings; see ``load_recipe``."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(where, dict(e), Recipe) for e in error.errors())) from error


def _explain(where: str, error: Mapping[str, Any], root: type[BaseModel]) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown setting `{'.'.join(path)}`.{_suggest(path, root)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    key = f"`{'.'.join(path)}`: " if path else ""
    given = "" if error["type"] in ("missing", "value_error") else f" (given: {error['input']!r})"
    return f"{where}: {key}{message}{given}"


def _suggest(path: Sequence[str], root: type[BaseModel]) -> str:
    model: type[BaseModel] = root
    for part in path[:-1]:
        inner = _model_of(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return ""
        model = inner
    known = list(model.model_fields)
    hint = did_you_mean(path[-1], known, prefix="".join(f"{part}." for part in path[:-1]))
    return hint or f" Known here: {', '.join(known)}"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, types.UnionType):
        return next((m for a in get_args(annotation) if (m := _model_of(a)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
