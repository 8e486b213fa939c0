"""What every reward is to the rest of the program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from sharpen.types import Completion, Group, Row, Score


class Reward(ABC):
    """Gives each completion of each group a score.

    ``name`` is what the reward is called in metrics and messages. ``has_answer`` says whether `answer` means
    something here; where it is False, majority voting (maj@k) is undefined and must not be reported. ``gives_steps``
    says whether a score has a value for each step, and ``reads_tokens`` whether scores may depend on the tokens of
    prompt and completion, and not on the completion's text and the row alone.
    """

    name: str
    has_answer: bool = False
    gives_steps: bool = False
    reads_tokens: bool = True

    @abstractmethod
    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        """One tuple per group, in its order, with one score per completion.

        Raises `RewardError` for a value that is no finite number. An exception of the user's own code is
        recorded in the score of its sample (``total`` None, ``error`` set); see
        `sharpen.rewards.combine.check_failures`.
        """

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
    written = [position for position, trained in enumerate(completion.trained) if trained]
    return written[-1] if written else len(completion.token_ids) - 1


def excerpt(text: str, length: int = 60) -> str:
    """``text`` as one quoted line of about ``length`` characters, for messages."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def sample_name(group: Group, index: int) -> str:
    """Names one completion of a group in a message."""
    text = group.completions[index].text
    return f"prompt {group.prompt.id!r}, completion {index} ({excerpt(text)})"
