"""What every reward is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from sharpen.rewards.execution.concurrency import CALLING_THREAD
from sharpen.types import Completion, Group, Row, Score

Wanted: TypeAlias = Sequence[Sequence[bool]]
"""Which completions of each group are to be scored."""

NOT_COMPUTED = Score(None)


class Reward(ABC):
    """Gives each completion of each group a score.

    ``name`` is what the reward is called in metrics and messages. ``has_answer`` says whether `answer` means
    something here; where it is False, majority voting (maj@k) is undefined and must not be reported. ``gives_steps``
    says whether a score has a value for each step, and ``reads_tokens`` whether scores may depend on the tokens of
    prompt and completion, and not on the completion's text and the row alone. Several rewards run concurrently,
    except those of the same ``concurrency_group``. By default a reward is in the group that runs in the calling thread.
    """

    name: str
    has_answer: bool = False
    gives_steps: bool = False
    reads_tokens: bool = True

    @property
    def concurrency_group(self) -> Hashable:
        """Rewards of the same group never run concurrently."""
        return CALLING_THREAD

    @abstractmethod
    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        """One tuple per group, in its order, with one score per completion.

        Raises `RewardError` for a value that is no finite number. An exception of the user's own code is
        recorded in the score of its sample (``total`` None, ``error`` set); see
        `sharpen.rewards.scoring.check_failures`.
        """

    def score_timed(self, groups: Sequence[Group]) -> tuple[list[tuple[Score, ...]], Mapping[str, float]]:
        """The scores, and the seconds that each part took by its name, where there are parts."""
        return self.score(groups), {}

    def score_where(self, groups: Sequence[Group], wanted: Wanted) -> list[tuple[Score, ...]]:
        """The same for completions that are ``wanted``; all others get `NOT_COMPUTED`."""
        chosen = [
            replace(group, completions=tuple(c for c, want in zip(group.completions, of_group, strict=True) if want))
            for group, of_group in zip(groups, wanted, strict=True)
        ]
        filled = [group for group in chosen if group.completions]
        found = iter(self.score(filled) if filled else ())
        result = []
        for group, of_group in zip(chosen, wanted, strict=True):
            scores = iter(next(found) if group.completions else ())
            result.append(tuple(next(scores) if want else NOT_COMPUTED for want in of_group))
        return result

    def check_columns(self, columns: Collection[str], where: str) -> None:
        """Raises `RewardError` if a column that the reward needs is not among ``columns``.

        ``where`` names the data in the message, for example a file or a task. Call it before the first step.
        """
        return

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learn the tokenizer of the policy that writes the completions. Call it before the first `score`."""
        return

    def reference(self, row: Row) -> str | None:
        """A completion that gives the row's own answer, in the form that the reward reads; None if none is known."""
        return None

    def leaves(self) -> tuple[Reward, ...]:
        """The rewards that this one is made of, itself if it is made of no others."""
        return (self,)

    def answer(self, completion: str) -> str | None:
        """The answer that ``completion`` gives, as majority voting compares it; None if it gives none."""
        return None


def last_position(completion: Completion) -> int:
    """The last token that the model wrote: where a reward of the whole completion stands."""
    written = [position for position, trained in enumerate(completion.loss_mask) if trained]
    return written[-1] if written else len(completion.token_ids) - 1


def excerpt(text: str, length: int = 60) -> str:
    """``text`` as one quoted line of about ``length`` characters, for messages."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def sample_name(group: Group, index: int) -> str:
    """Names one completion of a group in a message."""
    text = group.completions[index].text
    return f"prompt {group.prompt.id!r}, completion {index} ({excerpt(text)})"
