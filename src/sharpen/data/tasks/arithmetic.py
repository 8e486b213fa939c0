"""Sums of a few numbers, small enough for a character-level transformer of a million parameters.

A prompt is ``47+85-36=``. The completion either guesses, ``#96``, or writes out the steps, each continuing from the
previous result: ``47+85=132;132-36=96#96``. Running totals never go below zero in a correct answer.

The demonstrations mix guesses with written-out answers, some of whose steps have a wrong result that the later steps
continue from. A model fine-tuned on them guesses about as often as it writes out, and cannot guess well.
Reinforcement learning has to teach it to always show its work and to make fewer slips than the demonstrations.
"""

import re
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt

from sharpen.data.rows import Rows
from sharpen.data.tasks.task import RowCount, is_held_out, task_rows
from sharpen.errors import RecipeError
from sharpen.settings import Settings
from sharpen.types import Row

ALPHABET = "0123456789+-=;#"
"""Every character of the problems and their answers."""

HELD_OUT_SHARE = 0.1

_ANSWER = re.compile(r"[^#]*#(-?\d+)")
_NUMBER = re.compile(r"[+-]?\d+")
_STEPS = re.compile(r"(?:-?\d+[+-]\d+=-?\d+;)*-?\d+[+-]\d+=-?\d+#-?\d+")

Problem = tuple[int, ...]
"""The first number, then the numbers added to it; subtracted numbers are negative."""


class Arithmetic(Settings):
    """The task ``arithmetic``. A problem is held out by its text alone, whatever the seed and the sizes."""

    terms: int = Field(default=3, ge=2, le=1000)
    """Numbers of a problem."""
    digits: int = Field(default=2, ge=1, le=9)
    """Digits of each number."""
    wrong_step_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the demonstrated steps whose result is wrong, each independently."""
    guess_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the answers that are guessed instead of written out: rightly in demonstrations, wrongly where the answer
    is the rejected one of a pair, half of each under step labels."""
    train_size: RowCount = 20_000
    held_out_size: RowCount = 500
    demonstration_size: RowCount = 50_000
    preference_size: RowCount = 20_000
    step_label_size: RowCount = 20_000
    seed: NonNegativeInt = 0

    @property
    def name(self) -> str:
        return "arithmetic"

    def train_rows(self) -> Rows:
        problems = self._draw(self.train_size, "train", held_out=False)
        return task_rows(self.name, "train", [_row(problem) for problem in problems])

    def held_out_rows(self) -> Rows:
        """Rows of distinct problems."""
        return task_rows(self.name, "held out", [_row(problem) for problem in self._held_out])

    def demonstrations(self) -> Rows:
        problems = self._draw(self.demonstration_size, "demonstrations", held_out=False)
        rng = self._generator("slips")
        guesses = rng.random(len(problems)) < self.guess_share
        slips = np.where(
            rng.random((len(problems), self.terms - 1)) < self.wrong_step_share,
            rng.random((len(problems), self.terms - 1)),
            np.nan,
        ).tolist()
        rows = [
            {**_row(problem), "completion": f"#{sum(problem)}" if guess else write_out(problem, slip)}
            for problem, guess, slip in zip(problems, guesses, slips, strict=True)
        ]
        return task_rows(self.name, "demonstrations", rows)

    def preferences(self) -> Rows:
        """Pairs of a chosen answer, written out without a slip, and a rejected answer with a wrong result."""
        return self._pairs("preferences", self._draw(self.preference_size, "preferences", held_out=False))

    def held_out_preferences(self) -> Rows:
        """One pair per held-out problem."""
        return self._pairs("held out preferences", self._held_out)

    def step_labels(self) -> Rows:
        """Answers split into steps, as in the demonstrations: label 1 before the first wrong step, 0 from it on."""
        return self._labelled("step labels", self._draw(self.step_label_size, "step labels", held_out=False))

    def held_out_step_labels(self) -> Rows:
        """One answer per held-out problem."""
        return self._labelled("held out step labels", self._held_out)

    def verify(self, completion: str, *, answer: str, **_: Any) -> float:
        """1 if the completion ends with ``#`` and the exact answer, and has no other ``#``."""
        return float(self.answer(completion) == answer)

    def answer(self, completion: str) -> str | None:
        """The number after the only ``#`` if it ends the completion, else None."""
        found = _ANSWER.fullmatch(completion)
        return found[1] if found else None

    def reference(self, row: Row) -> str:
        """The problem written out without a slip."""
        return _without_slip(tuple(map(int, _NUMBER.findall(row["prompt"]))))

    @cached_property
    def _held_out(self) -> list[Problem]:
        # 20 samples per wanted problem find enough distinct ones unless hardly that many exist.
        drawn = dict.fromkeys(self._draw(20 * self.held_out_size, "held out", held_out=True))
        if len(drawn) < self.held_out_size:
            raise RecipeError(
                f"arithmetic: only {len(drawn)} different held-out problems found with terms={self.terms}, "
                f"digits={self.digits}, but held_out_size={self.held_out_size}: make it smaller, or terms or "
                "digits larger"
            )
        return list(drawn)[: self.held_out_size]

    def _pairs(self, part: str, problems: list[Problem]) -> Rows:
        rng = self._generator(part)
        rows = [
            {**_row(problem), "chosen": _without_slip(problem), "rejected": self._wrong_answer(problem, rng)}
            for problem in problems
        ]
        return task_rows(self.name, part, rows)

    def _labelled(self, part: str, problems: list[Problem]) -> Rows:
        rng = self._generator(part)
        rows = []
        for problem in problems:
            if rng.random() < self.guess_share:
                right = rng.random() < 0.5
                answer = f"#{sum(problem)}" if right else f"#{_result(self._slipped(problem, rng))}"
            else:
                answer = write_out(problem, self._slips(problem, rng))
            values = [
                value for _, value in step_rewards(answer, prompt=problem_text(problem), answer=str(sum(problem)))
            ]
            labels = [int(all(values[: i + 1])) for i in range(len(values))]
            rows.append({**_row(problem), "steps": re.findall(r"[^;]+;?", answer), "labels": labels})
        return task_rows(self.name, part, rows)

    def _wrong_answer(self, problem: Problem, rng: np.random.Generator) -> str:
        guess = rng.random() < self.guess_share
        slipped = self._slipped(problem, rng)
        return f"#{_result(slipped)}" if guess else slipped

    def _slipped(self, problem: Problem, rng: np.random.Generator) -> str:
        """An answer written out with one or more slips and a wrong result."""
        while True:
            slips = self._slips(problem, rng)
            slips[rng.integers(len(slips))] = rng.random()
            answer = write_out(problem, slips)
            # Two slips may cancel out.
            if _result(answer) != str(sum(problem)):
                return answer

    def _slips(self, problem: Problem, rng: np.random.Generator) -> list[float]:
        count = len(problem) - 1
        return [slip if r < self.wrong_step_share else np.nan for r, slip in rng.random((count, 2)).tolist()]

    def _draw(self, count: int, purpose: str, *, held_out: bool) -> list[Problem]:
        rng = self._generator(purpose)
        found: list[Problem] = []
        part = HELD_OUT_SHARE if held_out else 1 - HELD_OUT_SHARE
        while len(found) < count:
            problems = self._random_problems(rng, int(1.1 * count / part))
            found += [p for p in problems if is_held_out(problem_text(p), HELD_OUT_SHARE) is held_out]
        return found[:count]

    def _random_problems(self, rng: np.random.Generator, count: int) -> list[Problem]:
        """Numbers of ``digits`` digits, each subtracted with probability 0.5 if the total then stays non-negative."""
        numbers = rng.integers(10 ** (self.digits - 1), 10**self.digits, size=(count, self.terms))
        minus = rng.random((count, self.terms)) < 0.5
        totals = numbers[:, 0].copy()
        for term in range(1, self.terms):
            signed = np.where(minus[:, term] & (totals >= numbers[:, term]), -numbers[:, term], numbers[:, term])
            numbers[:, term] = signed
            totals += signed
        return list(map(tuple, numbers.tolist()))

    def _generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose.encode()])


def problem_text(problem: Problem) -> str:
    """``47+85-36=``"""
    first, *others = problem
    return f"{first}{''.join(f'{number:+d}' for number in others)}="


def write_out(problem: Problem, slips: list[float]) -> str:
    """The answer with its steps. A slip in [0, 1) selects the wrong result of its step; NaN means no slip."""
    total, *others = problem
    steps = []
    for number, slip in zip(others, slips, strict=True):
        result = total + number
        if slip == slip:
            wrong = wrong_results(total, number)
            result = wrong[int(slip * len(wrong))]
        steps.append(f"{total}{number:+d}={result}")
        total = result
    return f"{';'.join(steps)}#{total}"


def step_rewards(completion: str, *, prompt: str, answer: str, **_: Any) -> list[tuple[int, float]]:
    """(end, reward) of each step of a completion: its end as a character offset, and 1 if it is correct, else 0.

    A step ends after its ``;``, the last one at the end of the completion. Step k is correct if it adds the problem's
    next number to the correct total so far, such as ``132-36=96;`` for step 2 of ``47+85-36=``. The last step must also
    give the correct answer, ``132-36=96#96``, or be that answer alone, ``#96``. Any other text, including none, is
    wrong.
    """
    first, *others = map(int, _NUMBER.findall(prompt))
    total, right = first, []
    for number in others:
        right.append(f"{total}{number:+d}={total + number}")
        total += number
    *steps, last = completion.split(";")
    rewards = []
    end = 0
    for step, expected in zip(steps, [*right, *[None] * len(steps)], strict=False):
        end += len(step) + 1
        rewards.append((end, float(step == expected)))
    answered = [f"#{answer}", *(f"{expected}#{answer}" for expected in right[len(steps) : len(steps) + 1])]
    return [*rewards, (len(completion), float(last in answered))]


def wrong_results(total: int, number: int) -> list[int]:
    """Typical human slips in ``total + number``: off by one, off by ten, or all carries dropped."""
    right = total + number
    wrong = [right - 1, right + 1, right - 10, right + 10]
    without_carry = _without_carry(total, number)
    if without_carry != right:
        wrong.append(without_carry)
    return wrong if right < 0 else [result for result in wrong if result >= 0]


def shows_work(completion: str) -> bool:
    """Whether the completion writes out at least one step and answers with the result of the last."""
    if not _STEPS.fullmatch(completion):
        return False
    steps, answer = completion.split("#")
    return steps.rpartition("=")[2] == answer


def _without_carry(total: int, number: int) -> int:
    """Adds or subtracts column by column, each modulo ten."""
    sign = 1 if number >= 0 else -1
    result, column = 0, 1
    rest, other = abs(total), abs(number)
    while rest or other:
        result += (rest + sign * other) % 10 * column
        rest, other, column = rest // 10, other // 10, column * 10
    return result


def _without_slip(problem: Problem) -> str:
    return write_out(problem, [np.nan] * (len(problem) - 1))


def _result(completion: str) -> str:
    return completion.rpartition("#")[2]


def _row(problem: Problem) -> dict[str, str]:
    return {"prompt": problem_text(problem), "answer": str(sum(problem))}
