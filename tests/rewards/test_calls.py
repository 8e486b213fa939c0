"""Calls of reward functions: threads, time limits, retries. Time limits are short, waits for events long."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from sharpen.errors import RewardError
from sharpen.rewards import CallSettings, FunctionReward
from sharpen.rewards.execution import calls as calls_module
from sharpen.rewards.execution import threads
from sharpen.types import Score

WAIT_S = 20.0
LIMIT_S = 0.5


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What stuck calls wait for; set at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()
    for thread in list(threads._stuck):
        thread.join(WAIT_S)


def scores_of(function: Callable[..., Any], group: Any, **call: Any) -> tuple[Score, ...]:
    (scores,) = FunctionReward(function, call=CallSettings(**call)).score([group])
    return scores


def test_calls_are_made_off_the_thread_that_asks_one_after_another_and_in_order(group: Any) -> None:
    seen: list[str] = []
    thread_ids: set[int] = set()
    running = threading.Lock()

    def reward(completion: str) -> float:
        assert running.acquire(blocking=False), "two calls at the same time"
        seen.append(completion)
        thread_ids.add(threading.get_ident())
        time.sleep(0.001)
        running.release()
        return float(completion)

    texts = [str(i) for i in range(20)]
    scores = scores_of(reward, group(texts))
    assert seen == texts
    assert [score.total for score in scores] == [float(i) for i in range(20)]
    assert threading.get_ident() not in thread_ids
    assert len(thread_ids) == 1


@pytest.mark.parametrize("says", ["the recipe", "the function"])
def test_as_many_calls_run_at_once_as_the_recipe_or_the_function_says(says: str, group: Any) -> None:
    meet = threading.Barrier(4, timeout=WAIT_S)

    def reward(completion: str) -> float:
        meet.wait()
        return float(completion)

    call: dict[str, Any] = {}
    if says == "the recipe":
        call = {"at_once": 4}
    else:
        reward.at_once = 4  # type: ignore[attr-defined]
    scores = scores_of(reward, group([str(i) for i in range(12)]), **call)
    assert [score.total for score in scores] == [float(i) for i in range(12)]


def test_the_recipe_has_the_last_word_on_how_many(group: Any) -> None:
    def reward(completion: str) -> float:
        return 1.0

    reward.at_once = 4  # type: ignore[attr-defined]
    assert FunctionReward(reward).at_once == 4
    assert FunctionReward(reward, call=CallSettings(at_once=1)).at_once == 1
    reward.at_once = 0  # type: ignore[attr-defined]
    with pytest.raises(RewardError, match="attribute at_once must be a whole number"):
        FunctionReward(reward)


def test_scores_do_not_depend_on_which_call_ends_first(group: Any) -> None:
    def reward(completion: str) -> float:
        time.sleep(0.02 / (1 + int(completion)))
        if completion == "3":
            raise ValueError("no three")
        return 1 / (1 + int(completion))

    texts = [str(i) for i in range(9)]
    alone, together = (scores_of(reward, group(texts), at_once=n) for n in (1, 9))
    assert alone == together
    assert [score.error is None for score in together] == [i != 3 for i in range(9)]


def test_a_call_that_hangs_fails_alone_after_its_time_limit(group: Any, released: threading.Event) -> None:
    def reward(completion: str) -> float:
        if completion == "hangs":
            released.wait(WAIT_S)
        return 1.0

    started = time.monotonic()
    scores = scores_of(reward, group(["a", "hangs", "b", "c"]), timeout_s=LIMIT_S)
    assert LIMIT_S <= time.monotonic() - started < WAIT_S / 2
    late = Score(None, {"reward": None}, error="reward gave no value within 0.5 s", timed_out=True)
    right = Score(1.0, {"reward": 1.0})
    assert scores == (right, late, right, right)


def test_a_call_that_ends_too_late_has_failed_alike(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it held the interpreter's lock, so that nobody could look at the time: here nobody looks."""
    monkeypatch.setattr(calls_module.Calls, "_abandon_overdue", lambda self: None)
    (score,) = scores_of(lambda completion: time.sleep(2 * LIMIT_S), group(["x"]), timeout_s=LIMIT_S)
    assert (score.total, score.timed_out) == (None, True)
    assert score.error == "<lambda> gave no value within 0.5 s"


def test_a_loop_that_nothing_can_end_is_left_behind(group: Any, released: threading.Event) -> None:
    def reward(completion: str) -> float:
        while completion == "loops" and not released.is_set():
            pass
        return 1.0

    scores = scores_of(reward, group(["loops", "a"]), timeout_s=LIMIT_S)
    assert [score.timed_out for score in scores] == [True, False]
    assert scores[1].total == 1.0


def test_too_many_stuck_calls_stop_the_run_and_are_named(
    group: Any, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MAX_STUCK", 2)
    seen: list[str] = []

    def judge(completion: str) -> float:
        seen.append(completion)
        released.wait(WAIT_S)
        return 1.0

    with pytest.raises(RewardError) as caught:
        scores_of(judge, group([str(i) for i in range(9)], id="row 7"), timeout_s=0.05)
    message = str(caught.value)
    assert "3 calls are stuck" in message
    assert "judge for prompt 'row 7', completion 2 ('2')" in message
    assert "call.process" in message
    assert seen == ["0", "1", "2"]


def test_calls_that_came_to_an_end_are_not_counted_as_stuck(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_STUCK", 1)
    for _ in range(3):
        (score,) = scores_of(lambda completion: time.sleep(0.1), group(["x"]), timeout_s=0.02)
        assert score.timed_out
        for thread in list(threads._stuck):
            thread.join(WAIT_S)


class Flaky:
    """Raises these one after another, then gives 1."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, completion: str) -> float:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 1.0


class RateLimited(ConnectionError):
    pass


def test_transient_errors_are_tried_again_and_counted(group: Any) -> None:
    flaky = Flaky(RateLimited("wait"), TimeoutError("slow"))
    scores = scores_of(flaky, group(["a", "b"]), retries=2, backoff_s=0.0)
    assert scores == (Score(1.0, {"Flaky": 1.0}, retries=2), Score(1.0, {"Flaky": 1.0}))
    assert flaky.calls == 4


def test_when_the_attempts_are_used_up_the_last_error_is_recorded(group: Any) -> None:
    (score,) = scores_of(Flaky(*[ConnectionError("down")] * 5), group(["a"]), retries=2, backoff_s=0.0)
    assert (score.total, score.retries, score.timed_out) == (None, 2, False)
    assert score.error is not None
    assert score.error.startswith("Flaky raised ConnectionError: down (test_calls.py, line")
    (score,) = scores_of(Flaky(TimeoutError("slow")), group(["a"]))
    assert (score.retries, score.timed_out) == (0, True)


def test_only_errors_that_are_named_are_tried_again(group: Any) -> None:
    flaky = Flaky(KeyError("a bug"))
    (score,) = scores_of(flaky, group(["a"]), retries=3, backoff_s=0.0)
    assert (flaky.calls, score.retries, score.total) == (1, 0, None)
    flaky = Flaky(KeyError("a bug"))
    (score,) = scores_of(flaky, group(["a"]), retries=3, backoff_s=0.0, retry_on=["LookupError"])
    assert (flaky.calls, score.retries, score.total) == (2, 1, 1.0)


def test_the_pause_doubles_and_does_not_count_towards_the_time_limit(
    group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(calls_module.time, "sleep", lambda s: (pauses.append(s), sleep(0.5))[0])
    flaky = Flaky(*[ConnectionError()] * 3)
    (score,) = scores_of(flaky, group(["a"]), retries=3, backoff_s=0.5, timeout_s=0.4)
    assert pauses == [0.5, 1.0, 2.0]
    assert (score.total, score.retries) == (1.0, 3)


def test_a_call_that_hangs_at_its_second_attempt_is_left_behind_too(group: Any, released: threading.Event) -> None:
    def reward(completion: str, first: list[str] = []) -> float:  # noqa: B006
        if not first:
            first.append(completion)
            raise ConnectionError
        released.wait(WAIT_S)
        return 1.0

    (score,) = scores_of(reward, group(["a"]), retries=5, backoff_s=0.0, timeout_s=LIMIT_S)
    assert (score.timed_out, score.retries) == (True, 1)


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (GeneratorExit(), "GeneratorExit: "),
        (StopIteration(), "StopIteration: "),
        (asyncio.CancelledError(), "CancelledError: "),
        (typer.Exit(0), "Exit: "),
        (typer.Abort(), "Abort: "),
        (Unspeakable(), "Unspeakable: (its text cannot be made)"),
    ],
)
def test_whatever_a_function_raises_fails_its_sample_alone(error: BaseException, said: str, group: Any) -> None:
    def reward(completion: str) -> float:
        if completion == "2":
            raise error
        return float(completion)

    scores = scores_of(reward, group([str(i) for i in range(4)]))
    assert [score.total for score in scores] == [0.0, 1.0, None, 3.0]
    assert scores[2].error is not None
    assert scores[2].error.startswith(f"reward raised {said}")
    assert "(test_calls.py, line " in scores[2].error


SCRIPT = """
import os, signal, threading, time
from sharpen.rewards import CallSettings, FunctionReward
from sharpen.types import Group, Prompt, single_turn

# Whoever started the tests in the background may have had them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def loops(completion):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        pass

completion = single_turn((1,), (1,), "x")
group = Group(Prompt("p", (1,), "", {}), (completion,))
reward = FunctionReward(loops, call=CallSettings(timeout_s=TIMEOUT_S))
try:
    print(reward.score([group])[0][0].error, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(("timeout_s", "said"), [(0.1, "loops gave no value within 0.1 s"), (600, "interrupted")])
def test_an_endless_loop_holds_up_neither_an_interrupt_nor_the_end_of_the_process(timeout_s: float, said: str) -> None:
    script = SCRIPT.replace("TIMEOUT_S", str(timeout_s))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == said
