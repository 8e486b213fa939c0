"""A step verifier as a reward: one value for each step of a completion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from numbers import Integral
from statistics import fmean
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from sharpen.data.positions import step_ends, token_ends
from sharpen.errors import RewardError
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.reward import last_position, sample_name
from sharpen.suggest import did_you_mean
from sharpen.types import Completion, Group, Score, StepValue

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

    Calls ``function(completion, **row)`` as `FunctionReward` does. It returns one (end, value) for each step, the end
    being the character offset at which the step ends; or, with ``separator``, one value for each step of the
    completion cut after each separator (see `sharpen.data.positions.step_ends`); or None where the reward does
    not apply. A step's value stands at the token that completes it. The last step's stands at the last token that the
    model wrote, the end-of-sequence token if it ended, so that no token comes after the last step. ``total`` says what
    the whole completion is worth: the mean, the least, the last or the product of the values.

    Raises `RewardError` at construction for a function or total that cannot be used, and while scoring if the function
    returns anything else, no steps at all, ends that do not rise or lie beyond the text (the last one may equal the one
    before), or if `use_tokenizer` was not called. What the function itself raises is recorded with the sample.
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
        call: CallSettings | None = None,
    ) -> None:
        super().__init__(function, name, settings, call=call)  # type: ignore[arg-type]
        if total not in _TOTALS:
            known = get_args(Total)
            raise RewardError(
                f"reward {self.name!r}: there is no total {total!r}.{did_you_mean(str(total), known)} "
                f"Known: {', '.join(known)}"
            )
        if separator == "":
            raise RewardError(f"reward {self.name!r}: the separator of the steps is empty")
        self.total: Total = total
        self.separator = separator
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def _judge(self, value: object, group: Group, index: int) -> Score:
        if value is None:
            return Score(None, {self.name: None})
        completion = group.completions[index]
        ends, values = self._steps(value, group, index)
        positions = step_positions(completion, ends, required_tokenizer(self.name, self._tokenizer))
        total = total_of(values, self.total)
        return Score(total, {self.name: total}, tuple(map(StepValue, positions, values)))

    def _steps(self, value: object, group: Group, index: int) -> tuple[tuple[int, ...], list[float]]:
        """The character offsets at which the steps end, and their values."""
        sample = sample_name(group, index)
        text = group.completions[index].text
        if hasattr(value, "tolist"):
            value = value.tolist()
        if not isinstance(value, Sequence) or isinstance(value, str):
            wanted = "a value for each step" if self.separator else "an (end, value) for each step"
            raise RewardError(
                f"reward {self.name!r} returned a {type(value).__name__} for {sample}; "
                f"it must return a list with {wanted}"
            )
        if self.separator is not None:
            ends = step_ends(text, self.separator)
            if len(value) != len(ends):
                raise RewardError(
                    f"reward {self.name!r} returned {len(value)} values for the {len(ends)} steps of {sample}"
                )
            given = list(value)
        else:
            ends, given = self._pairs(value, sample)
            if not ends:
                raise RewardError(f"reward {self.name!r} returned no steps for {sample}; it must return at least one")
            if any(b <= a for a, b in pairwise((0, *ends[:-1]))) or ends[-1] < max((0, *ends[:-1])):
                raise RewardError(
                    f"reward {self.name!r} returned ends of steps that do not rise, {list(ends)}, for {sample}"
                )
            if ends[-1] > len(text):
                raise RewardError(
                    f"reward {self.name!r} returned a step that ends at character {ends[-1]} of the {len(text)} of "
                    f"{sample}"
                )
        return ends, [self._number(v, partial("step {} of {}".format, i, sample)) for i, v in enumerate(given, start=1)]

    def _pairs(self, value: Sequence[Any], sample: str) -> tuple[tuple[int, ...], list[Any]]:
        for step in value:
            if not isinstance(step, Sequence) or len(step) != 2 or not isinstance(step[0], Integral):
                raise RewardError(
                    f"reward {self.name!r} returned the step {step!r} for {sample}; a step is (end, value), "
                    "the end being a character offset. For values alone give a separator"
                )
        return tuple(int(end) for end, _ in value), [v for _, v in value]


def total_of(values: Sequence[float], total: Total) -> float:
    """What a completion is worth whose steps have these values."""
    return float(_TOTALS[total](values))


def step_positions(completion: Completion, ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens at which the steps end whose characters end at ``ends``; the last one at the last token written."""
    return (*token_ends(completion.token_ids, ends[:-1], tokenizer), last_position(completion))


def required_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """Raises `RewardError` where no tokenizer was given."""
    if tokenizer is None:
        raise RewardError(
            f"reward {name!r} finds the tokens of the completions and needs the policy's tokenizer: call "
            "reward.use_tokenizer(tokenizer) before the first score"
        )
    return tokenizer
