"""Async reward functions. Time limits are short, waits for events long."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import CallSettings, FunctionReward, WeightedSum, resolve_reward
from sharpen.rewards.execution import event_loop, threads
from sharpen.types import Score

WAIT_S = 20.0
LIMIT_S = 0.3


def scores_of(function: Callable[..., Any], group: Any, **call: Any) -> tuple[Score, ...]:
    (scores,) = FunctionReward(function, call=CallSettings(**call)).score([group])
    return scores


class Concurrent:
    """Counts the calls that overlap. Each waits, for at most 10 s, until ``until`` of them have overlapped."""

    def __init__(self, until: int = 1) -> None:
        self.now = self.most = 0
        self.until, self.reached = until, asyncio.Event()
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.threads: set[threading.Thread] = set()

    async def __call__(self, completion: str) -> float:
        self.loops.add(asyncio.get_running_loop())
        self.threads.add(threading.current_thread())
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == self.until:
            self.reached.set()
        await asyncio.wait_for(self.reached.wait(), 10)
        await asyncio.sleep(0.01)
        self.now -= 1
        return float(completion)


@pytest.mark.parametrize(("at_once", "most"), [(20, 20), (7, 7), (1, 1), (None, 16)])
def test_at_once_bounds_how_many_calls_overlap_on_one_event_loop(at_once: int | None, most: int, group: Any) -> None:
    reward = Concurrent(until=most)
    scores = scores_of(reward, group([str(i) for i in range(20)]), at_once=at_once)
    assert [score.total for score in scores] == [float(i) for i in range(20)]
    assert reward.most == most
    assert len(reward.loops) == len(reward.threads) == 1
    assert threading.current_thread() not in reward.threads


def test_functions_objects_and_names_may_be_async(group: Any, tmp_path: Path) -> None:
    async def length(completion: str, unit: int = 1, **row: Any) -> float:
        return len(completion) * unit

    (tmp_path / "judges.py").write_text(
        "async def length(completion, unit=1, **row):\n    return len(completion) * unit\n"
    )
    expected = (Score(2.0, {"length": 2.0}), Score(6.0, {"length": 6.0}))
    for name in (length, f"{tmp_path / 'judges.py'}:length"):
        assert resolve_reward({"name": name, "unit": 2}).score([group(["a", "bbb"], answer="4")]) == [expected]
    length.at_once = 3  # type: ignore[attr-defined]
    assert FunctionReward(length).at_once == 3
    assert FunctionReward(Concurrent()).at_once == 16


def test_all_calls_share_a_loop_so_that_connections_may_be_kept(group: Any) -> None:
    first, second = Concurrent(), Concurrent()
    for reward in (first, second, first):
        scores_of(reward, group(["1", "2"]))
    assert first.loops == second.loops
    assert len(first.loops) == 1


def test_a_call_that_takes_too_long_is_cancelled_and_fails_alone(group: Any) -> None:
    cancelled = threading.Event()

    async def reward(completion: str) -> float:
        if completion == "hangs":
            try:
                await asyncio.sleep(WAIT_S)
            finally:
                cancelled.set()
        return 1.0

    stuck = list(threads._stuck)
    scores = scores_of(reward, group(["a", "hangs", "b"]), timeout_s=LIMIT_S)
    assert cancelled.wait(WAIT_S / 2)
    late = Score(None, {"reward": None}, error="reward gave no value within 0.3 s", timed_out=True)
    assert scores == (Score(1.0, {"reward": 1.0}), late, Score(1.0, {"reward": 1.0}))
    assert threads._stuck == stuck


def test_a_call_that_took_too_long_may_be_retried(group: Any) -> None:
    calls: list[str] = []

    async def reward(completion: str) -> float:
        calls.append(completion)
        if len(calls) < 3:
            await asyncio.sleep(WAIT_S)
        return 1.0

    call: dict[str, Any] = {"timeout_s": LIMIT_S, "backoff_s": 0.0}
    assert scores_of(reward, group(["a"]), retries=2, **call) == (Score(1.0, {"reward": 1.0}, retries=2),)
    calls.clear()
    (score,) = scores_of(reward, group(["a"]), retries=1, **call)
    assert (score.total, score.timed_out, score.retries, len(calls)) == (None, True, 1, 2)


class RateLimitError(ConnectionError):
    pass


def test_transient_errors_are_retried_and_counted(group: Any) -> None:
    errors: list[Exception] = [RateLimitError("wait"), TimeoutError("slow")]

    async def reward(completion: str) -> float:
        await asyncio.sleep(0)
        if errors:
            raise errors.pop(0)
        return 1.0

    scores = scores_of(reward, group(["a", "b"]), retries=2, backoff_s=0.0, at_once=1)
    assert scores == (Score(1.0, {"reward": 1.0}, retries=2), Score(1.0, {"reward": 1.0}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no"), "ValueError: no"),
        (TimeoutError("slow"), "TimeoutError: slow"),
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (GeneratorExit(), "GeneratorExit: "),
        (asyncio.CancelledError(), "CancelledError: "),
    ],
)
def test_whatever_it_raises_fails_its_sample_alone(error: BaseException, said: str, group: Any) -> None:
    async def reward(completion: str) -> float:
        await asyncio.sleep(0.001)
        if completion == "2":
            raise error
        return float(completion)

    scores = scores_of(reward, group([str(i) for i in range(4)]))
    assert [score.total for score in scores] == [0.0, 1.0, None, 3.0]
    assert scores[2].error is not None
    assert scores[2].error.startswith(f"reward raised {said}")
    assert "(test_async_rewards.py, line " in scores[2].error
    assert scores[2].timed_out == isinstance(error, TimeoutError)


def test_sync_and_async_rewards_run_concurrently_in_a_sum(group: Any) -> None:
    """Neither returns before both have been called."""
    sync_called, async_called = threading.Event(), threading.Event()

    def length(completion: str) -> float:
        sync_called.set()
        assert async_called.wait(WAIT_S)
        return float(len(completion))

    async def judge(completion: str) -> float:
        async_called.set()
        while not sync_called.is_set():
            await asyncio.sleep(0.001)
        if completion == "bad":
            raise ValueError("no")
        return 0.5

    total = WeightedSum([(FunctionReward(length), 1.0), (FunctionReward(judge), 2.0)])
    (scores,), seconds = total.score_timed([group(["x", "bad", "xxxx"])])
    assert [score.total for score in scores] == [2.0, None, 5.0]
    assert scores[0].parts == {"length": 1.0, "judge": 0.5}
    assert list(seconds) == ["length", "judge"]


def test_step_verifiers_may_be_async(written: Any) -> None:
    async def steps(completion: str) -> list[tuple[int, float]]:
        return [(1, 0.5), (len(completion), 1.0)]

    characters = character_tokenizer("12;", context=8)
    reward = resolve_reward({"name": "steps", "function": steps})
    reward.use_tokenizer(characters)
    ((score,),) = reward.score([written(characters, ["1;2"])])
    assert [step.value for step in score.steps] == [0.5, 1.0]


def test_a_value_that_is_not_a_number_is_refused(group: Any) -> None:
    async def reward(completion: str) -> float:
        return float("nan")

    with pytest.raises(RewardError, match="reward 'reward' returned nan for prompt"):
        scores_of(reward, group(["x"]))


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What blocking coroutines wait for; set at the end, so that the loop they block ends up idle."""
    monkeypatch.setattr(event_loop, "BLOCKED_AFTER_S", 0.1)
    event = threading.Event()
    yield event
    event.set()
    threads._stuck.clear()


def test_a_coroutine_that_blocks_the_loop_is_left_behind_and_the_next_calls_get_a_new_loop(
    group: Any, released: threading.Event
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def reward(completion: str) -> float:
        loops.append(asyncio.get_running_loop())
        if completion == "blocks":
            released.wait(WAIT_S)
        return 1.0

    scores = scores_of(reward, group(["a", "blocks", "b", "c"]), timeout_s=LIMIT_S, at_once=1)
    assert [score.timed_out for score in scores] == [False, True, False, False]
    assert loops[0] is loops[1]
    assert loops[2] is loops[3] is not loops[0]
    assert len([thread for thread in threads._stuck if thread.name == "async rewards"]) == 1


def test_too_many_blocked_loops_stop_the_run_and_are_named(
    group: Any, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MAX_STUCK", 2)
    threads._stuck.clear()

    async def judge(completion: str) -> float:
        released.wait(WAIT_S)
        return 1.0

    with pytest.raises(RewardError, match="3 calls are stuck") as caught:
        scores_of(judge, group([str(i) for i in range(9)], id="row 7"), timeout_s=0.05, at_once=1)
    assert "judge for prompt 'row 7', completion 2 ('2')" in str(caught.value)


def test_a_forked_process_has_an_event_loop_of_its_own(group: Any) -> None:
    code = """
import os
from sharpen.rewards import FunctionReward
from sharpen.types import Group, Prompt, single_turn

async def length(completion):
    return len(completion)

group = Group(Prompt("p", (1,), "", {}), (single_turn((1,), (1,), "xyz"),))
assert FunctionReward(length).score([group])[0][0].total == 3.0
child = os.fork()
if not child:
    os._exit(0 if FunctionReward(length).score([group])[0][0].total == 3.0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "0", done.stderr


SCRIPT = """
import asyncio, os, signal, sys, threading
from sharpen.rewards import CallSettings, FunctionReward
from sharpen.rewards.execution.concurrency import run_sequentially
from sharpen.types import Group, Prompt, single_turn

# Whoever started the tests in the background may have had them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def judge(completion):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    await asyncio.sleep(600)

group = Group(Prompt("p", (1,), "", {}), (single_turn((1,), (1,), "x"),))
reward = FunctionReward(judge, call=CallSettings(timeout_s=600))
try:
    if sys.argv[1] == "sequentially":
        with run_sequentially():
            reward.score([group])
    else:
        reward.score([group])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("mode", ["concurrently", "sequentially"])
def test_ctrl_c_while_a_call_waits_is_ctrl_c(mode: str) -> None:
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode, done.stderr) == ("interrupted", 0, "")
    assert time.monotonic() - started_s < 60
