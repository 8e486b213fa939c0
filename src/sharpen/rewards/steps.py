"""Step verifiers: rewards with a value for each step of a completion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count, pairwise
from numbers import Integral
from statistics import fmean
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from sharpen.data.positions import step_ends, token_ends
from sharpen.data.tokens import hidden_ids, visible_text
from sharpen.errors import RewardError
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.reward import last_position, sample_name
from sharpen.suggest import did_you_mean
from sharpen.types import Finish, Group, Sample, Score, StepValue, Trajectory

Total = Literal["mean", "min", "last", "product"]
StepFunction = Callable[..., Sequence[Any] | None]

_TOTALS: dict[Total, Callable[[Sequence[float]], float]] = {
    "mean": fmean,
    "min": min,
    "last": lambda values: values[-1],
    "product": math.prod,
}


class StepReward(FunctionReward):
    """A value for each step of the completion, from a function.

    Calls ``function(completion, **row)``, or with ``trajectory``, as `FunctionReward` does. It returns one (end, value)
    for each step of the last answer, where end is the character offset of the step's end; or, with ``separator``, one
    value for each step of the last answer split after each separator (see `sharpen.data.positions.step_ends`); or, with
    ``turns``, one value for each turn of the model; or None if the reward does not apply. A step's value is placed at
    the token that completes it, the last step's at the last token that the model generated (including the
    end-of-sequence token), so that no token follows the last step. A turn's value is placed at the last token that the
    model generated in it. ``total`` aggregates the values to the trajectory's reward: mean, min, last or product.

    Raises `RewardError` at construction for an invalid function or total, or both ``separator`` and ``turns``; and
    while scoring if the function returns anything else, no steps, ends that do not increase (the last one may equal the
    one before) or lie beyond the text, or, without ``turns``, if `use_tokenizer` was not called. An exception in the
    function is recorded with the sample.
    """

    gives_steps = True
    reads_tokens = True

    def __init__(
        self,
        function: StepFunction,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        total: Total = "mean",
        separator: str | None = None,
        turns: bool = False,
        call: CallSettings | None = None,
    ) -> None:
        super().__init__(function, name, settings, call=call)  # type: ignore[arg-type]
        if total not in _TOTALS:
            known = get_args(Total)
            raise RewardError(
                f"reward {self.name!r}: unknown total {total!r}.{did_you_mean(str(total), known)} "
                f"Known: {', '.join(known)}"
            )
        if separator == "":
            raise RewardError(f"reward {self.name!r}: the separator is empty")
        if separator is not None and turns:
            raise RewardError(f"reward {self.name!r}: the steps are turns, so there is no separator")
        self.total: Total = total
        self.separator = separator
        self.turns = turns
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def _judge(self, value: object, group: Group, index: int) -> Score:
        if value is None:
            return Score(None, {self.name: None})
        sample = sample_name(group, index)
        trajectory = group.trajectories[index]
        returned = self._returned(value, sample)
        if self.turns:
            places = turn_ends(trajectory)
            values = self._numbers(self._one_each(returned, places, "turns", sample), "turn", sample)
            steps = tuple(
                StepValue(place, value, number) for (number, place), value in zip(places, values, strict=True)
            )
        else:
            ends, values = self._steps(returned, trajectory.text, sample)
            steps = step_values(trajectory, ends, values, required_tokenizer(self.name, self._tokenizer))
        total = total_of(values, self.total)
        return Score(total, {self.name: total}, steps)

    def _returned(self, value: object, sample: str) -> Sequence[Any]:
        if hasattr(value, "tolist"):
            value = value.tolist()
        if not isinstance(value, Sequence) or isinstance(value, str):
            wanted = "one value per step" if self.separator else "one (end, value) per step"
            raise RewardError(
                f"reward {self.name!r} returned a {type(value).__name__} for {sample}; "
                f"it must return a list with {'one value per turn' if self.turns else wanted}"
            )
        if not value and self.separator is None:
            raise RewardError(f"reward {self.name!r} returned no steps for {sample}; it must return at least one")
        return value

    def _one_each(self, values: Sequence[Any], of: Sequence[object], what: str, sample: str) -> Sequence[Any]:
        if len(values) != len(of):
            raise RewardError(
                f"reward {self.name!r} returned {len(values)} values for the {len(of)} {what} of {sample}"
            )
        return values

    def _numbers(self, values: Sequence[Any], what: str, sample: str) -> list[float]:
        names = (partial("{} {} of {}".format, what, i, sample) for i in count(1))
        return [self._number(value, name) for value, name in zip(values, names, strict=False)]

    def _steps(self, value: Sequence[Any], text: str, sample: str) -> tuple[tuple[int, ...], list[float]]:
        """The character offsets of the steps' ends, and their values."""
        if self.separator is not None:
            ends = step_ends(text, self.separator)
            given = self._one_each(value, ends, "steps", sample)
        else:
            ends, given = self._pairs(value, sample)
            if any(b <= a for a, b in pairwise((0, *ends[:-1]))) or ends[-1] < max((0, *ends[:-1])):
                raise RewardError(
                    f"reward {self.name!r} returned step ends that do not increase, {list(ends)}, for {sample}"
                )
            if ends[-1] > len(text):
                raise RewardError(
                    f"reward {self.name!r} returned a step that ends at character {ends[-1]}, beyond the {len(text)} "
                    f"characters of {sample}"
                )
        return ends, self._numbers(given, "step", sample)

    def _pairs(self, value: Sequence[Any], sample: str) -> tuple[tuple[int, ...], Sequence[Any]]:
        for step in value:
            if not isinstance(step, Sequence) or len(step) != 2 or not isinstance(step[0], Integral):
                raise RewardError(
                    f"reward {self.name!r} returned the step {step!r} for {sample}; a step is (end, value), "
                    "where end is a character offset. To return values only, set a separator, or turns"
                )
        return tuple(int(end) for end, _ in value), [v for _, v in value]


def total_of(values: Sequence[float], total: Total) -> float:
    """The reward of a completion with these step values."""
    return float(_TOTALS[total](values))


def step_positions(
    sample: Sample, ends: Sequence[int], answer: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """The tokens of a sample at which the steps of its last turn end, given the ends in characters of the ``answer``.

    The answer may be a part of that turn's text, such as what comes after the thinking. The last step ends at the last
    generated token.
    """
    start = sample.answer_start
    written = sample.token_ids[start:]
    # The model may have ends that its tokenizer does not name.
    hidden = hidden_ids(tokenizer, written[-1:] if sample.finish is Finish.EOS else ())
    before = 0
    if len(ends) > 1 and not (text := visible_text(tokenizer, written, hidden)).startswith(answer):
        # Decoded from its beginning, a text of SentencePiece has no blank there.
        blanks = 0 if answer in text else len(answer) - len(answer.lstrip())
        found = text.rfind(answer[blanks:])
        before = found - blanks if found >= 0 else 0
    inner = token_ends(written, [before + end for end in ends[:-1]], tokenizer, hidden)
    return (*(start + position for position in inner), last_position(sample))


def step_values(
    trajectory: Trajectory, ends: Sequence[int], values: Sequence[float], tokenizer: PreTrainedTokenizerBase
) -> tuple[StepValue, ...]:
    """The values of the steps of the model's last answer, which end at these characters of it."""
    positions = step_positions(trajectory.last, ends, trajectory.text, tokenizer)
    number = len(trajectory.samples) - 1
    return tuple(StepValue(place, value, number) for place, value in zip(positions, values, strict=True))


def turn_ends(trajectory: Trajectory) -> tuple[tuple[int, int], ...]:
    """The (sample, position) of the last token of each turn of the model."""
    return tuple((number, stop - 1) for number, sample in enumerate(trajectory.samples) for _, stop in sample.turns)


def required_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """The tokenizer. Raises `RewardError` if it is None."""
    if tokenizer is None:
        raise RewardError(
            f"reward {name!r} reads the completions' tokens and needs the policy's tokenizer: call "
            "reward.use_tokenizer(tokenizer) before the first score"
        )
    return tokenizer
