"""The interface of all rewards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from sharpen.rewards.execution.concurrency import CALLING_THREAD
from sharpen.types import Group, Prompt, Row, Sample, Score, StepValue, Trajectory

Wanted: TypeAlias = Sequence[Sequence[bool]]
"""Which completions of each group are to be scored."""

NOT_COMPUTED = Score(None)


class Reward(ABC):
    """Gives each completion of each group a score.

    ``name`` is the reward's name in metrics and messages. ``has_answer`` says whether `answer` is defined; if not,
    majority voting (maj@k) is undefined and must not be reported. ``gives_steps`` says whether scores have a value for
    each step. ``term_weights`` are the weights of a total's terms if it is a weighted sum. ``reads_tokens`` says
    whether scores may depend on the tokens of prompt and completion, not just on the completion's text and the row.
    Rewards run concurrently, except those of the same ``concurrency_group``, which run one after another; the default
    group is the calling thread.
    """

    name: str
    has_answer: bool = False
    gives_steps: bool = False
    term_weights: tuple[float, ...] = ()
    reads_tokens: bool = True

    @property
    def part_names(self) -> Collection[str] | None:
        """The names that the parts of its scores can have; None if they are not known before they are computed."""
        return None

    @property
    def concurrency_group(self) -> Hashable:
        """Rewards of the same group never run concurrently."""
        return CALLING_THREAD

    @abstractmethod
    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        """One tuple per group, in its order, with one score per completion.

        Raises `RewardError` for a value that is not a finite number. An exception in user code is recorded in the
        score of its sample (``total`` None, ``error`` set); see `sharpen.rewards.scoring.check_failures`.
        """

    def score_timed(self, groups: Sequence[Group]) -> tuple[list[tuple[Score, ...]], Mapping[str, float]]:
        """The scores, and the seconds by name of each part, if the reward has parts."""
        return self.score(groups), {}

    def score_where(self, groups: Sequence[Group], wanted: Wanted) -> list[tuple[Score, ...]]:
        """Scores only the ``wanted`` completions; all others get `NOT_COMPUTED`."""
        chosen = [
            replace(group, trajectories=tuple(t for t, want in zip(group.trajectories, of_group, strict=True) if want))
            for group, of_group in zip(groups, wanted, strict=True)
        ]
        filled = [group for group in chosen if group.trajectories]
        found = iter(self.score(filled) if filled else ())
        result = []
        for group, of_group in zip(chosen, wanted, strict=True):
            scores = iter(next(found) if group.trajectories else ())
            result.append(tuple(next(scores) if want else NOT_COMPUTED for want in of_group))
        return result

    def check_columns(self, columns: Collection[str], where: str) -> None:
        """Raises `RewardError` if ``columns`` lacks a column that the reward needs.

        ``where`` names the data in the message, for example a file or a task. To be called before the first step.
        """
        return

    def check_row(self, row: Row, where: str) -> None:
        """Raises `RewardError` if ``row`` lacks a value that the reward needs, or holds one that it cannot use.

        ``where`` names the row in the message. To be called for every row before the first step.
        """
        return

    def columns_read(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Those of a data set's ``columns`` whose values the reward may depend on."""
        return ()

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Sets the policy's tokenizer. To be called before the first `score`."""
        return

    def reference(self, row: Row) -> str | None:
        """A completion with the row's reference answer, in the form that the reward parses; None if none is known."""
        return None

    def doubt(self, prompt: Prompt) -> str | None:
        """Why no completion of this prompt could get a full reward; None if there is no doubt."""
        return None

    @property
    def allowed_cheats(self) -> tuple[str, ...]:
        """Cheats of `sharpen reward check` that are right answers to this reward."""
        return ()

    def leaves(self) -> tuple[Reward, ...]:
        """The innermost rewards that this one combines; itself if it combines none."""
        return (self,)

    def of_source(self, source: str) -> Reward:
        """The reward of the prompts of this data source: the same for all, unless the reward says otherwise."""
        return self

    def scores_source(self, source: str) -> bool:
        """Whether there is a reward for the prompts of this data source."""
        return True

    def answer(self, completion: str) -> str | None:
        """The answer in ``completion`` for majority voting; None if it has none."""
        return None


def all_part_names(rewards: Iterable[Reward]) -> tuple[str, ...] | None:
    """The parts that scores of several rewards can have, each of a reward of its own; None if one's are not known."""
    names = [reward.part_names for reward in rewards]
    known = [one for one in names if one is not None]
    return tuple(dict.fromkeys(name for one in known for name in one)) if len(known) == len(names) else None


def last_position(sample: Sample) -> int:
    """The last token that the model generated: the position of a reward for the whole trajectory."""
    written = [position for position, trained in enumerate(sample.loss_mask) if trained]
    return written[-1] if written else len(sample.token_ids) - 1


def at_the_end(trajectory: Trajectory, value: float) -> StepValue:
    """A value for the whole trajectory as that of a single step."""
    return StepValue(last_position(trajectory.last), value, len(trajectory.samples) - 1)


def excerpt(text: str, length: int = 60) -> str:
    """``text`` as one quoted line of about ``length`` characters, for messages."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def sample_name(group: Group, index: int) -> str:
    """Names one completion of a group in a message."""
    text = group.trajectories[index].text
    return f"prompt {group.prompt.id!r}, completion {index} ({excerpt(text)})"
