"""How completions are sampled for training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sharpen.in_memory import FreeSettings, NamedPart
from sharpen.settings import LOWEST_TEMPERATURE, Effect, Seconds, Settings

Flow = Literal["blocks", "free"]


def _is_own(engine: Any) -> bool:
    return not isinstance(engine, str) or ":" in engine


class EngineSettings(Settings):
    """What samples, and within which limits."""

    name: NamedPart = "local"
    """The engine of this process, on its CPU or GPU; or one of your own, as `module:name` or `path/to/file.py:name`."""
    max_sequences: int = Field(512, ge=1)
    """Completions in the running batch, while others wait."""
    kv_gib: float | None = Field(None, gt=0, le=1_000_000)
    """Memory for the keys and values of prompts and completions, in GiB. null: 8 on a CPU; on a GPU half of what the
    policy's weights, gradients and optimizer state leave of its memory."""
    settings: FreeSettings = Field({})
    """Settings of an engine of your own, under names of its own."""

    effects = (
        *(Effect(name, "with the engine local", lambda s: not _is_own(s.name)) for name in ("max_sequences", "kv_gib")),
        Effect("settings", "with an engine of your own", lambda s: s.name != "local"),
    )


class RolloutSettings(Settings):
    """How completions are sampled for training.

    Evaluations use the same engine, length, stop strings and failure limit, but sampling parameters of their own.
    """

    max_new_tokens: int = Field(256, ge=1)
    """The longest completion in tokens; with `turns`, what the model may write in all its turns."""
    temperature: float = Field(1.0, ge=LOWEST_TEMPERATURE, le=1000)
    """Temperature of the sampling; the trained log-probabilities are at this temperature too."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a completion; they stay part of it. They may be or contain special tokens."""
    engine: EngineSettings = EngineSettings()
    turns: NamedPart = None
    """A function (prompt, trajectory) -> Reply or End that answers the model between its turns, as `module:name` or
    `path/to/file.py:name`. null: one turn."""
    max_turns: int = Field(8, ge=1)
    """The model's turns in a trajectory."""
    turn_timeout_s: Seconds = 60.0
    """The time limit of a reply in seconds."""
    flow: Flow = "blocks"
    """blocks draws the next turns of all conversations together, which a resumed run repeats bit for bit; free draws on
    while replies are awaited."""
    lag: int = Field(0, ge=0)
    """With k, the policy that draws a batch is k versions older than the one that is trained on it."""
    max_reward_failures: float = Field(0.1, ge=0, le=1)
    """The run stops if `turns` or the reward fails or takes too long for more than this share of a step's
    completions."""

    top_p: float = 1.0
    """Cannot be changed: the policy gradient is undefined for a truncated distribution."""
    top_k: int = 0
    """Likewise."""
    min_p: float = 0.0
    """Likewise."""

    effects = tuple(
        Effect(name, "with turns", lambda s: s.turns is not None) for name in ("max_turns", "turn_timeout_s")
    )

    @model_validator(mode="after")
    def _untruncated(self) -> RolloutSettings:
        if (self.top_p, self.top_k, self.min_p) != (1.0, 0, 0.0):
            raise ValueError(
                "training needs top_p=1, top_k=0, min_p=0: a policy gradient is undefined on a truncated "
                "distribution. To truncate in evaluation, set `evaluation.top_p`, `evaluation.top_k` or "
                "`evaluation.min_p`"
            )
        return self
