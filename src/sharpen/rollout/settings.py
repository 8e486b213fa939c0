"""How completions are sampled for training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sharpen.in_memory import NamedPart
from sharpen.settings import Settings

Flow = Literal["blocks", "free"]


class EngineSettings(Settings):
    name: NamedPart = Field("local", description="local, or one of your own as module:name or path/to/file.py:name")
    max_sequences: int = Field(512, ge=1, description="requests that the local engine decodes at once")
    kv_gib: float | None = Field(None, gt=0)
    """Memory for keys and values of the local engine, in GiB; null: derived from the model and the kind of device."""
    settings: dict[str, Any] = Field({}, description="of an engine of your own, which gets them as settings.settings")

    @model_validator(mode="after")
    def _have_effect(self) -> EngineSettings:
        of_local = [f for f in ("max_sequences", "kv_gib") if getattr(self, f) != type(self).model_fields[f].default]
        if self.name == "local" and self.settings:
            raise ValueError("settings has no effect with the engine local, only with one of your own")
        if (not isinstance(self.name, str) or ":" in self.name) and of_local:
            raise ValueError(f"{of_local[0]} has no effect with an engine of your own: it gets what is in settings")
        return self


class RolloutSettings(Settings):
    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, gt=0)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    engine: EngineSettings = EngineSettings()
    turns: NamedPart = None
    """What answers the policy between its turns: a function (prompt, trajectory) -> Reply or End, as module:name or
    path/to/file.py:name. null: trajectories have one turn."""
    max_turns: int = Field(8, ge=1, description="of the policy in a trajectory, with turns")
    turn_timeout_s: float = Field(60.0, gt=0, description="time limit of a reply, with turns")
    flow: Flow = "blocks"
    """blocks: all conversations' next turns are drawn together, which a resumed run repeats bit for bit. free: the
    engine draws on while replies are awaited."""
    lag: int = Field(0, ge=0, description="versions by which the policy that draws a batch is behind; 0: on-policy")
    """With a lag of k the batch of a step is drawn k steps before it is trained on."""
    max_reward_failures: float = Field(0.1, ge=0, le=1)
    """The share of a step's samples whose turns or reward may raise or time out before the run stops."""

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @model_validator(mode="after")
    def _turns_have_effect(self) -> RolloutSettings:
        fields = type(self).model_fields
        of_turns = ("max_turns", "turn_timeout_s", "flow")
        changed = [name for name in of_turns if getattr(self, name) != fields[name].default]
        if changed and self.turns is None:
            raise ValueError(f"{changed[0]} has no effect without turns")
        return self

    @model_validator(mode="after")
    def _untruncated(self) -> RolloutSettings:
        if (self.top_p, self.top_k, self.min_p) != (1.0, 0, 0.0):
            raise ValueError(
                "training needs top_p=1, top_k=0, min_p=0: a policy gradient is undefined on a truncated "
                "distribution. To truncate in evaluation, set `evaluation.top_p`, `evaluation.top_k` or "
                "`evaluation.min_p`"
            )
        return self
