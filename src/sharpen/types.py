"""The data types that all parts of the program share.

Axes, written as a suffix of tensor names:

    P   prompts of a step            G   trajectories per prompt
    E   trajectories of a step       B   samples, at least one per trajectory
    T   tokens of a trajectory, those of its samples one after another, padded to the longest
    R   packed rows                  L   tokens of a packed row
    N   tokens that are trained on   V   vocabulary
    K   combined rewards

``logprobs_ET[e, t]`` is the log-probability of token t of trajectory e. With one turn a trajectory is one sample. Names
carry units (``timeout_s``, ``kl_nats``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain, groupby
from typing import Any, Literal, Self

Row = Mapping[str, Any]
"""One row of a data set: column name to value."""

Message = Mapping[str, Any]
"""A message of a conversation, with at least ``role`` and ``content``."""


Reads = Literal["prompts", "demonstrations", "preferences", "steps"]
"""What a method needs from the data: prompts only, demonstrations, preferences, or completions with step labels."""


class Finish(StrEnum):
    """Why the policy stopped writing."""

    EOS = "eos"
    STOP = "stop_string"
    LENGTH = "length"


class End(StrEnum):
    """How a trajectory ended."""

    DONE = "done"
    OUT_OF_TOKENS = "out_of_tokens"
    OUT_OF_TURNS = "out_of_turns"
    ENVIRONMENT_FAILED = "environment_failed"
    STALE = "cancelled_as_stale"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt. ``row`` holds all columns of its data row, which the reward gets as keywords.

    ``messages`` is the conversation that ``text`` was rendered from, including the system message; empty if the prompt
    is plain text. ``template_arguments`` are what the chat template got beside them: the settings' arguments, and the
    row's ``tools`` and ``documents``. ``source`` is the name of the data source that it comes from; empty in a run with
    only one.
    """

    id: str
    token_ids: tuple[int, ...]
    text: str
    row: Row
    messages: tuple[Message, ...] = ()
    source: str = ""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


NOT_DRAWN = -1
"""The version of a token that no policy drew, such as one of a tool's reply."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a model is trained on: a prefix and the tokens after it, which are never tokenised again.

    ``loss_mask`` says per token whether it is trained on. ``logprobs`` are the log-probabilities with which the tokens
    were drawn, and ``versions`` the policy versions that drew them: 0 and `NOT_DRAWN` for tokens that no policy drew.
    Both are empty for data that this run's policy did not write.
    """

    prefix_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    finish: Finish = Finish.EOS
    logprobs: tuple[float, ...] = ()
    versions: tuple[int, ...] = ()

    @property
    def turns(self) -> tuple[tuple[int, int], ...]:
        """The (start, stop) of each run of tokens that the policy drew; of data, of tokens that are trained on."""
        drawn = [version != NOT_DRAWN for version in self.versions] or self.loss_mask
        found = []
        start = 0
        for is_drawn, tokens in groupby(drawn):
            stop = start + len(list(tokens))
            if is_drawn:
                found.append((start, stop))
            start = stop
        return tuple(found)

    @property
    def drawn(self) -> int:
        """The number of tokens in `turns`."""
        if self.versions:
            return len(self.versions) - self.versions.count(NOT_DRAWN)
        return sum(self.loss_mask)

    @property
    def answer_start(self) -> int:
        """Where the tokens of the last turn begin."""
        turns = self.turns
        return turns[-1][0] if turns else 0


@dataclass(frozen=True, slots=True)
class StepValue:
    """The reward of one step of a trajectory; the step ends at token ``position`` of sample number ``sample``."""

    position: int
    value: float
    sample: int = 0


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """One term of a weighted sum of rewards; ``value`` is None if the reward does not apply."""

    weight: float
    value: float | None


class Refused(float):
    """A reward of 0 for a completion that, by its own doing, could not be judged.

    ``reason`` says why, and is recorded with the sample; ``timed_out`` whether judging it took too long.
    """

    reason: str
    timed_out: bool

    def __new__(cls, reason: str, *, timed_out: bool = False) -> Self:
        made = super().__new__(cls, 0.0)
        made.reason, made.timed_out = reason, timed_out
        return made


@dataclass(frozen=True, slots=True)
class Score:
    """The reward of a trajectory.

    ``total`` is None if the reward does not apply or failed; such a trajectory does not count in the baseline and is
    not trained on. ``parts`` are the named rewards that make up the total. ``error`` says why the reward failed,
    ``timed_out`` whether it took too long, ``retries`` how many calls were repeated. ``refused`` says why a completion
    could not be judged, by its own doing, so that a reward is 0. If the total is a weighted sum, ``weighted_rewards``
    are its terms, weight · value, of the same rewards for all trajectories of a step.
    """

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    steps: tuple[StepValue, ...] = ()
    error: str | None = None
    timed_out: bool = False
    retries: int = 0
    weighted_rewards: tuple[WeightedReward, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt at a prompt: what a reward scores, and what an advantage and a 1/G count.

    One sample, or several where the conversation is not one run of tokens. ``messages`` are what was said after the
    prompt, by the model and by others. ``draw_id`` is unique within a run; it is None for data.
    """

    samples: tuple[Sample, ...]
    messages: tuple[Message, ...] = ()
    end: End = End.DONE
    draw_id: int | None = None
    score: Score | None = None

    @property
    def text(self) -> str:
        """The model's last answer."""
        for message in reversed(self.messages):
            if message["role"] == "assistant":
                return str(message["content"])
        return ""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens after the prefixes, sample by sample: a row of the batch."""
        return tuple(chain.from_iterable(sample.token_ids for sample in self.samples))

    @property
    def loss_mask(self) -> tuple[bool, ...]:
        """Which of ``token_ids`` are trained on."""
        return tuple(chain.from_iterable(sample.loss_mask for sample in self.samples))

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    @property
    def truncated(self) -> bool:
        """Whether the policy was cut off."""
        return self.end is End.OUT_OF_TOKENS

    @property
    def drawn(self) -> int:
        """The number of tokens that the policy drew, |o|; of data, of tokens that are trained on."""
        return sum(sample.drawn for sample in self.samples)


def single_turn(
    prefix_ids: tuple[int, ...],
    token_ids: tuple[int, ...],
    text: str,
    *,
    loss_mask: tuple[bool, ...] | None = None,
    finish: Finish = Finish.EOS,
    logprobs: tuple[float, ...] = (),
    versions: tuple[int, ...] = (),
    draw_id: int | None = None,
    score: Score | None = None,
) -> Trajectory:
    """A trajectory of one sample: a prompt and one completion, all of it trained on unless ``loss_mask`` says less."""
    mask = (True,) * len(token_ids) if loss_mask is None else loss_mask
    return Trajectory(
        (Sample(prefix_ids, token_ids, mask, finish, logprobs, versions),),
        ({"role": "assistant", "content": text},),
        End.OUT_OF_TOKENS if finish is Finish.LENGTH else End.DONE,
        draw_id,
        score,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its trajectories.

    Before they are scored, only those whose environment failed have a score; after that all have one.
    """

    prompt: Prompt
    trajectories: tuple[Trajectory, ...]

    @property
    def scores(self) -> tuple[Score, ...]:
        """Those that there are: one for each trajectory once they are scored."""
        return tuple(t.score for t in self.trajectories if t.score is not None)

    def scored(self, scores: Sequence[Score]) -> Group:
        if len(scores) != len(self.trajectories):
            raise ValueError(f"{len(scores)} scores for {len(self.trajectories)} trajectories")
        scored = zip(self.trajectories, scores, strict=True)
        return replace(self, trajectories=tuple(replace(trajectory, score=score) for trajectory, score in scored))
