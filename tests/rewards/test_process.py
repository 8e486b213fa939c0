"""Reward functions in processes of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import Reward, resolve_reward
from sharpen.types import Score

MODULE = '''
import asyncio, os, re, signal, sys, time

def length(completion, unit=1, **row):
    return len(completion) * unit

def here(completion):
    print("this must not get into the pipe")
    return os.getpid()

def loops(completion):
    while completion == "loops":
        pass
    return 1

def holds_the_lock(completion):
    """A pattern of exponential time: nothing else of the process runs meanwhile."""
    return 1.0 if re.fullmatch("(a+)+b", completion) else 0.0

def raises(completion):
    return {"a": 1}[completion]

def ends(completion):
    os._exit(3)

def has_its_key(completion):
    return float(os.environ.get("JUDGE_KEY") == completion)

def odd(completion, value):
    return {"nan": float("nan"), "dict": {}, "none": None, "true": True}[value]

def uses_the_signal(completion):
    """As some verifiers do, which only works in the main thread of a process."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.05)
    return 1.0

def flaky(completion, folder):
    path = os.path.join(folder, "called")
    if not os.path.exists(path):
        open(path, "w").close()
        raise ConnectionResetError("come again")
    return 1.0

def hangs(completion, path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    while True:
        pass

seen = []

async def judge(completion):
    await asyncio.sleep(60 if completion == "hangs" else 0)
    seen.append(asyncio.get_running_loop())
    if completion == "breaks":
        raise ConnectionError("down")
    return float(len(completion)) if seen[0] is seen[-1] else -1.0

def steps(completion, separator=";"):
    return [(1, 0.5), (len(completion), 1.0)]
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(MODULE)
    return path


def reward_of(file: Path, function: str, *, settings: dict[str, Any] | None = None, **call: Any) -> Reward:
    return resolve_reward({"name": f"{file}:{function}", "call": {"process": True, **call}, **(settings or {})})


def test_a_function_in_a_process_gives_what_it_gives_here(file: Path, group: Any) -> None:
    of_group = group(["abc", "é" * 9, ""], unit=2)
    here, there = resolve_reward(f"{file}:length"), reward_of(file, "length")
    assert there.score([of_group]) == here.score([of_group])
    assert there.name == here.name == "length"
    assert reward_of(file, "length", settings={"unit": 3}).score([of_group])[0][0].total == 9.0
    with pytest.raises(RewardError, match=r"reward 'flaky' takes no setting 'foldr'\. Did you mean `folder`"):
        reward_of(file, "flaky", settings={"foldr": "."})


def test_it_is_one_other_process_for_all_calls_one_after_another(file: Path, group: Any) -> None:
    reward = reward_of(file, "here")
    pids = {score.total for _ in range(2) for score in reward.score([group(["a", "b", "c"])])[0]}
    assert len(pids) == 1
    assert pids != {os.getpid()}


def test_it_has_the_keys_that_stand_in_the_environment(file: Path, group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "abc")
    (scores,) = reward_of(file, "has_its_key").score([group(["abc", "x"])])
    assert [score.total for score in scores] == [1.0, 0.0]


def test_a_call_that_hangs_is_ended(file: Path, group: Any) -> None:
    """Also one that holds the interpreter's lock, which as a thread would stop everything."""
    for function, text in (("loops", "loops"), ("holds_the_lock", "a" * 60)):
        started = time.monotonic()
        (scores,) = reward_of(file, function, timeout_s=1).score([group(["x", text, "x"])])
        assert time.monotonic() - started < 20
        assert [score.timed_out for score in scores] == [False, True, False]
        assert scores[0].total == scores[2].total is not None
        assert scores[1].error is not None
        assert scores[1].error.startswith(f"{function} raised TimeoutError: no answer within 1 s")


def test_what_it_raises_and_how_it_ends_is_recorded_with_the_sample(file: Path, group: Any) -> None:
    (scores,) = reward_of(file, "raises").score([group(["a", "b"])])
    assert scores[0] == Score(1.0, {"raises": 1.0})
    assert scores[1].error is not None
    assert scores[1].error.startswith("raises raised KeyError: 'b' (my_rewards.py, line")
    ((score,),) = reward_of(file, "ends").score([group(["a"])])
    assert score.error is not None
    assert "ended with status 3" in score.error


def test_the_kind_of_what_it_raises_decides_on_another_attempt(file: Path, group: Any, tmp_path: Path) -> None:
    reward = reward_of(file, "flaky", settings={"folder": str(tmp_path)}, retries=1, backoff_s=0.0)
    assert reward.score([group(["a"])])[0] == (Score(1.0, {"flaky": 1.0}, retries=1),)


def test_values_are_judged_as_those_of_this_process(file: Path, group: Any) -> None:
    assert reward_of(file, "odd", settings={"value": "none"}).score([group(["a"])])[0][0].error is None
    assert reward_of(file, "odd", settings={"value": "true"}).score([group(["a"])])[0][0].total == 1.0
    for value, message in (("nan", "returned nan for prompt"), ("dict", "returned a dict for prompt")):
        with pytest.raises(RewardError, match=message):
            reward_of(file, "odd", settings={"value": value}).score([group(["a"])])


def test_signals_work_there(file: Path, group: Any) -> None:
    assert reward_of(file, "uses_the_signal").score([group(["a"])])[0][0].total == 1.0
    ((score,),) = resolve_reward(f"{file}:uses_the_signal").score([group(["a"])])
    assert score.error is not None
    assert "signal only works in main thread" in score.error


def test_what_json_cannot_hold_is_named(file: Path, group: Any) -> None:
    ((score,),) = reward_of(file, "length").score([group(["a"], picture=b"\x00")])
    assert score.error is not None
    assert "'picture' cannot be given to a function in another process" in score.error


def test_an_async_function_is_awaited_there(file: Path, group: Any) -> None:
    """On one event loop for all its calls; a call that hangs is killed with the process."""
    reward = reward_of(file, "judge", timeout_s=5)
    (scores,) = reward.score([group(["a", "bbb", "breaks", "hangs", "cc"])])
    assert [score.total for score in scores] == [1.0, 3.0, None, None, 2.0]
    assert scores[2].error is not None
    assert scores[2].error.startswith("judge raised ConnectionError: down (my_rewards.py, line ")
    assert [score.timed_out for score in scores] == [False, False, False, True, False]


def test_step_verifiers_may_run_there_too(file: Path, written: Any) -> None:
    characters = character_tokenizer("12;", context=8)
    reward = resolve_reward({"name": "steps", "function": f"{file}:steps", "call": {"process": True}})
    reward.use_tokenizer(characters)
    ((score,),) = reward.score([written(characters, ["1;2"])])
    assert [step.value for step in score.steps] == [0.5, 1.0]


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "exact_answer", "call": {"process": True}},
        {"name": len, "call": {"process": True}},
    ],
)
def test_only_a_named_function_has_a_process(spec: Any) -> None:
    with pytest.raises(RewardError, match=r"call\.process requires a function"):
        resolve_reward(spec)


SCRIPT = """
import sys
from sharpen.rewards import resolve_reward
from sharpen.types import Group, Prompt, single_turn

reward = resolve_reward({"name": sys.argv[1], "call": {"process": True, "timeout_s": 2}})
completion = single_turn((1,), (1,), "a")
((score,),) = reward.score([Group(Prompt("p", (1,), "", {"path": sys.argv[2]}), (completion,))])
print(int(score.total), flush=True)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z" if Path("/proc").exists() else False


def test_the_process_ends_with_the_one_that_asked(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"{file}:here", ""], capture_output=True, text=True, timeout=60, check=True
    )
    patience = time.monotonic() + 20
    while not gone(int(done.stdout)):
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_a_call_that_hangs_does_not_outlive_a_trainer_that_was_killed(file: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, f"{file}:hangs", str(tmp_path / "pid")])
    patience = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < patience
        time.sleep(0.01)
    process.kill()
    process.wait()
    pid = int((tmp_path / "pid").read_text())
    patience = time.monotonic() + 20
    while not gone(pid):
        assert time.monotonic() < patience
        time.sleep(0.05)
