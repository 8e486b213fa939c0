"""A reward takes time in proportion to a completion's length, whatever the completion repeats.

What runs in this process counts: programs run in the sandbox, and patterns of the user's in processes that are ended.
"""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from growth import NEGLIGIBLE_S, growth
from hostile_texts import HOSTILE_TEXTS
from sharpen.data.positions import step_ends, token_ends
from sharpen.data.tasks import TASKS, resolve_task
from sharpen.data.tasks.arithmetic import shows_work, step_rewards
from sharpen.data.tasks.gym import GymTask
from sharpen.data.tasks.gym_checks import DECIDED, EXACT, GUARDED
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards.code.verifiers import Code
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.math.verifier import MOST_CHARACTERS, Math
from sharpen.rewards.models.rendering import Rendered, positions_of_ends
from sharpen.rewards.text import json_schema, regex
from sharpen.rewards.verifier import Verifier
from sharpen.system.printable import printable

Reader = Callable[[str], object]

SIZES = (1 << 14, 1 << 17)
MOST_GROWTH = 6.0
"""For four times the text: 4 if the time is linear, 16 if it is quadratic."""

SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "exact_answer": ({},),
    "contains": ({"words": ("aaab", "x")}, {"words": ("aaab",), "whole_word": False, "case_sensitive": True}),
    "regex": ({"pattern": "x+y"}, {"pattern": "x+y", "mode": "search"}),
    "tags": ({}, {"prefilled": True}),
    "math": ({},),
    "json_schema": ({"schema": {"type": "object"}},),
    "language": ({"language": "en"}, {"script": "latin"}),
    "repetition": ({},),
    "code_tests": ({},),
    "code_check": ({},),
    "code_asserts": ({},),
    "code_compiles": ({},),
    "code_lint": ({},),
}
"""With what each reward is made."""

AROUND = {
    "marker": "#### {}",
    "tags": "<answer>{}</answer>",
    "boxed": r"\boxed{{{}}}",
    "fence": "```\n{}\n```",
}
"""A text where a reward looks for the answer."""

GYM_ENTRY = {"answer": "1", "metadata": {"numbers": [1], "target": 1, "sorted_words": ["a"], "real_solutions": [1]}}
EQUATION = {"prompt": "47+85-36=", "answer": "96"}

OTHERS: dict[str, Reader] = {
    **{f"step_ends, {separator!r}": lambda text, s=separator: step_ends(text, s) for separator in ("\n", "a", " ")},
    "shows_work": shows_work,
    "step_rewards": lambda text: step_rewards(text, **EQUATION),
    "gym, the answer": lambda text: GymTask.answer(None, text),  # type: ignore[arg-type]
    **{f"gym, {name}": lambda text, c=check: c(text, GYM_ENTRY) for name, check in {**DECIDED, **EXACT}.items()},
    **{f"gym, {name}": guard for name, guard in GUARDED.items()},
    "printable": printable,
}


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers() -> Iterator[None]:
    yield
    for module in (json_schema, regex):
        module._workers.close()


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    # Its time depends on all that the process holds.
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def assert_linear(name: str, read: Reader) -> None:
    read(HOSTILE_TEXTS["letters"](10))  # what is loaded and started at the first call
    for repeats, make in HOSTILE_TEXTS.items():
        for size in SIZES:
            text = make(size)
            started_s = time.thread_time()
            read(text)
            # A smaller input is said to take `NEGLIGIBLE_S` at least, so that less than this has not grown.
            if time.thread_time() - started_s > MOST_GROWTH * NEGLIGIBLE_S:
                grown = growth(make, read, size)
                assert grown <= MOST_GROWTH, f"{name}, {repeats}: {grown:.1f} times as long for 4 times {size // 4}"


def readers(kind: type[Verifier]) -> Iterator[tuple[str, Reader]]:
    """How the reward reads a text, and the answer in it, wherever it may look for one."""
    place = next((name for name in ("answer_from", "code_from") if name in kind.model_fields), None)
    places = get_args(kind.model_fields[place].annotation) if place else (None,)
    for settings in SETTINGS[kind.name]:
        for where in places:
            given = {**settings, place: where} if place else settings
            # No sandbox is needed to find the program.
            made = kind.model_construct(**given) if issubclass(kind, Code) else kind(**given)
            called = made._code if isinstance(made, Code) else lambda text, row, made=made: made(text, **row)
            yield f"{given}", lambda text, called=called: called(text, {"answer": "5"})
            if where in AROUND:
                around = AROUND[where]
                yield f"within {given}", lambda text, called=called, a=around: called(a.format(text), {"answer": "5"})
            if kind.has_answer:
                yield f"the answer of {given}", made.answer


VERIFIERS = {name: kind.settings for name, kind in REWARDS.items() if issubclass(kind.settings, Verifier)}


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_reward_takes_linear_time(name: str) -> None:
    assert name in SETTINGS, f"say in SETTINGS with what the reward {name!r} is made"
    for how, read in readers(VERIFIERS[name]):
        assert_linear(f"{name}, {how}", read)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_takes_linear_time(name: str) -> None:
    task = resolve_task(name)
    row = task.held_out_rows()[0]
    assert_linear(name, lambda text: task.verify(text, **row))
    if task.answer is not None:
        assert_linear(f"the answer of {name}", task.answer)


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_else_reads_a_completion_takes_linear_time(name: str) -> None:
    assert_linear(name, OTHERS[name])


def test_the_longest_answer_that_math_compares_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer is not read; up to there the patterns may take quadratic time. The algebra runs elsewhere."""
    monkeypatch.setattr("sharpen.rewards.math.verifier._compare", lambda expected, answer, timeout_s: (False, 0.0))
    for repeats, make in HOSTILE_TEXTS.items():
        for expected in ("5", "x=5", r"\{1,2\}", r"5 \text{ cm}"):
            answer = make(MOST_CHARACTERS - 10)[: MOST_CHARACTERS - 1]
            started_s = time.thread_time()
            assert Math(answer_from="whole")(answer, answer=expected) == 0.0
            assert time.thread_time() - started_s < 0.2, (repeats, expected)


def test_steps_are_found_among_tokens_in_linear_time() -> None:
    tokenizer = character_tokenizer("a;", context=32)

    def made(size: int) -> tuple[list[int], tuple[int, ...]]:
        text = "a;" * (size // 2)
        return tokenizer(text)["input_ids"], step_ends(text, ";")

    assert growth(made, lambda given: token_ends(*given, tokenizer), 1 << 12) <= MOST_GROWTH


def test_steps_are_found_in_a_rendered_text_in_linear_time() -> None:
    def made(size: int) -> tuple[Rendered, tuple[int, ...], str]:
        text = "a;" * (size // 2)
        return Rendered((0,) * size, 0, tuple((i, i + 1) for i in range(size))), step_ends(text, ";"), text

    assert growth(made, lambda given: positions_of_ends(*given), 1 << 16) <= MOST_GROWTH
    assert positions_of_ends(*made(6)) == (1, 3, 5)
