import threading
import time
from contextvars import ContextVar

import pytest
import torch

from sharpen.rewards.threads import HERE, given_up, side_by_side, start_thread

WAIT_S = 20.0


def test_jobs_of_different_lanes_run_at_the_same_time_and_keep_their_order() -> None:
    meet = threading.Barrier(3, timeout=WAIT_S)

    def job(number: int) -> int:
        meet.wait()
        return number

    assert side_by_side([(lane, lambda n=lane: job(n)) for lane in (2, 0, 1)]) == [2, 0, 1]  # type: ignore[misc]
    assert side_by_side([]) == []


def test_jobs_of_one_lane_run_one_after_another_in_their_order() -> None:
    seen: list[tuple[int, str]] = []

    def job(number: int) -> None:
        seen.append((number, "begins"))
        time.sleep(0.002)
        seen.append((number, "ends"))

    side_by_side([("lane", lambda n=n: job(n)) for n in range(4)])  # type: ignore[misc]
    assert seen == [(n, what) for n in range(4) for what in ("begins", "ends")]


def test_one_lane_runs_in_the_thread_that_asks() -> None:
    me = threading.get_ident()
    assert side_by_side([("a", threading.get_ident), (HERE, threading.get_ident)])[1] == me
    first, second = side_by_side([("a", threading.get_ident), ("b", threading.get_ident)])
    assert (first == me, second == me) == (True, False)


def test_the_exception_of_the_first_job_is_raised_whichever_came_first_in_time() -> None:
    other_failed = threading.Event()

    def late() -> None:
        assert other_failed.wait(WAIT_S)
        raise ValueError("the first job")

    def early() -> None:
        try:
            raise KeyError("the second job")
        finally:
            other_failed.set()

    with pytest.raises(ValueError, match="the first job"):
        side_by_side([("a", late), ("b", early)])


class PowerCut(BaseException):
    """No failure of a job."""


def test_what_is_no_exception_is_raised_at_once_and_the_others_are_given_up() -> None:
    gave_up: list[bool] = []
    ended = threading.Event()

    def long() -> None:
        gave_up.append(given_up.get().wait(WAIT_S))
        ended.set()

    def cut() -> None:
        raise PowerCut

    for own, other in ((cut, long), (lambda: None, cut)):
        started = time.monotonic()
        with pytest.raises(PowerCut):
            side_by_side([(HERE, own), ("other", other), ("third", long)])
        assert time.monotonic() - started < WAIT_S / 2
        assert ended.wait(WAIT_S)
    assert all(gave_up)
    assert not given_up.get().is_set()


def test_a_thread_has_the_context_and_the_gradient_mode_of_the_one_that_starts_it() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="default")
    found: list[tuple[str, bool]] = []

    def look() -> None:
        found.append((variable.get(), torch.is_grad_enabled()))

    token = variable.set("set")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            thread = start_thread(look, "looks")
        thread.join(WAIT_S)
    variable.reset(token)
    assert found == [("set", True), ("set", False)]
    assert thread.daemon
