import threading
import time
from contextvars import ContextVar

import pytest
import torch

from sharpen.rewards.execution.concurrency import CALLING_THREAD, cancelled, run_concurrently
from sharpen.rewards.execution.threads import start_thread

WAIT_S = 20.0


def test_jobs_of_different_groups_run_concurrently_and_keep_their_order() -> None:
    meet = threading.Barrier(3, timeout=WAIT_S)

    def job(number: int) -> int:
        meet.wait()
        return number

    assert run_concurrently([(group, lambda n=group: job(n)) for group in (2, 0, 1)]) == [2, 0, 1]  # type: ignore[misc]
    assert run_concurrently([]) == []


def test_jobs_of_one_group_run_one_by_one_in_order() -> None:
    seen: list[tuple[int, str]] = []

    def job(number: int) -> None:
        seen.append((number, "begins"))
        time.sleep(0.002)
        seen.append((number, "ends"))

    run_concurrently([("group", lambda n=n: job(n)) for n in range(4)])  # type: ignore[misc]
    assert seen == [(n, what) for n in range(4) for what in ("begins", "ends")]


def test_one_group_runs_in_the_calling_thread() -> None:
    me = threading.get_ident()
    assert run_concurrently([("a", threading.get_ident), (CALLING_THREAD, threading.get_ident)])[1] == me
    first, second = run_concurrently([("a", threading.get_ident), ("b", threading.get_ident)])
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
        run_concurrently([("a", late), ("b", early)])


class PowerCut(BaseException):
    """No failure of a job."""


def test_an_interrupt_is_raised_at_once_and_the_others_start_nothing_new() -> None:
    stopped: list[bool] = []
    ended = threading.Event()

    def long() -> None:
        stopped.append(cancelled.get().wait(WAIT_S))
        ended.set()

    def cut() -> None:
        raise PowerCut

    for own, other in ((cut, long), (lambda: None, cut)):
        started = time.monotonic()
        with pytest.raises(PowerCut):
            run_concurrently([(CALLING_THREAD, own), ("other", other), ("third", long)])
        assert time.monotonic() - started < WAIT_S / 2
        assert ended.wait(WAIT_S)
    assert all(stopped)
    assert not cancelled.get().is_set()


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
