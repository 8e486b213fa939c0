import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.rewards import FunctionReward
from sharpen.rewards import math as math_reward
from sharpen.rewards.math import Math, equal
from sharpen.rewards.worker import Worker

HANGS = r"9^{9^{9^9}}"


@pytest.fixture(scope="module", autouse=True)
def _end_the_worker() -> Iterator[None]:
    yield
    math_reward._worker.close()


@pytest.mark.parametrize(
    ("expected", "answer", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("1/2", r"\dfrac12", True),
        (r"50\%", "0.5", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("(x-1)(x+1)", "x^2-1", True),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        ("(1, 2)", "(2, 1)", False),
        ("1,234", "1234.0", True),
        ("12", "1,2", False),
        ("5", "4, 5, 6", False),
        ("5", "5$ or $6", False),
        ("1/3", "0.33", False),
        (r"\text{Tuesday}", "Tuesday", True),
        ("5", "", False),
    ],
)
def test_equal(expected: str, answer: str, same: bool) -> None:
    assert equal(expected, answer) is same


@pytest.mark.parametrize(
    ("settings", "completion", "expected", "reward"),
    [
        ({}, r"so it is \boxed{\frac{2}{4}}.", "1/2", 1.0),
        ({}, r"so it is \boxed{3}.", r"we get \boxed{3}", 1.0),
        ({}, "3", "3", 0.0),
        ({}, r"\boxed{1}\boxed{2}", "1", 0.0),
        ({"answer_from": "marker"}, "#### 72", "60+12=72\n#### 72", 1.0),
        ({"answer_from": "marker"}, "#### 73", "60+12=72\n#### 72", 0.0),
        ({"answer_from": "tags"}, "<answer>x=5</answer>", "5", 1.0),
        ({"answer_from": "last_number"}, "one half, 1/2", "0.5", 1.0),
        ({"answer_from": "last_number"}, "no number", "0.5", 0.0),
    ],
)
def test_math(settings: dict[str, Any], completion: str, expected: str, reward: float) -> None:
    assert Math(**settings)(completion, answer=expected) == reward


def test_a_comparison_that_hangs_is_ended_and_recorded(group: Any) -> None:
    assert equal("4", "2+2")
    start = time.monotonic()
    reward = FunctionReward(Math(timeout_s=0.3))
    (scores,) = reward.score([group([rf"\boxed{{{HANGS}}}", r"\boxed{5}"], answer="5")])
    assert time.monotonic() - start < 5
    assert scores[0].total is None
    assert scores[0].error is not None
    assert "math raised TimeoutError: no answer within 0.3 s" in scores[0].error
    assert scores[1].total == 1.0
    assert equal("7", "3+4")


def test_it_works_from_threads_at_once() -> None:
    results: dict[int, bool] = {}

    def compare(i: int) -> None:
        results[i] = equal(f"{i}", f"{i - 1}+1" if i % 2 else f"{i}+1")

    threads = [threading.Thread(target=compare, args=(i,)) for i in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {i: bool(i % 2) for i in range(10, 18)}


def test_an_expected_answer_that_is_no_mathematics_is_an_error() -> None:
    with pytest.raises(ValueError, match="is empty"):
        equal(" ", "5")


ECHO = """
import json, sys, time
print("{}", flush=True)
for line in sys.stdin:
    question = json.loads(line)
    if question.get("end"):
        sys.exit(3)
    time.sleep(question.get("sleep_s", 0))
    print(json.dumps(question), flush=True)
"""


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Worker]:
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    worker = Worker(script)
    yield worker
    worker.close()


def test_an_answer_that_came_too_late_is_never_taken_for_the_next(echo: Worker) -> None:
    assert echo.ask({"i": 1}, timeout_s=5) == {"i": 1}
    with pytest.raises(TimeoutError):
        echo.ask({"i": 2, "sleep_s": 60}, timeout_s=0.05)
    assert echo.ask({"i": 3}, timeout_s=5) == {"i": 3}


def test_a_worker_that_dies_is_named_and_started_again(echo: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"echo\.py ended with status 3"):
        echo.ask({"end": True}, timeout_s=5)
    assert echo.ask({"i": 1}, timeout_s=5) == {"i": 1}
    assert echo._process is not None
    pid = echo._process.pid
    os.kill(pid, 9)
    echo._process.wait()
    assert echo.ask({"i": 2}, timeout_s=5) == {"i": 2}
    assert echo._process.pid != pid
