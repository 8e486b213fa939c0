"""Holding the garbage collector still: as long as anybody asks for it, and no longer."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sharpen.sandbox.inside import collector


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    was_enabled = gc.isenabled()
    yield
    (gc.enable if was_enabled else gc.disable)()


def test_the_last_to_leave_lets_it_go_on() -> None:
    gc.enable()
    first, second = ExitStack(), ExitStack()
    first.enter_context(collector.paused())
    second.enter_context(collector.paused())
    assert not gc.isenabled()
    first.close()
    assert not gc.isenabled()
    second.close()
    assert gc.isenabled()


def test_it_goes_on_after_an_error() -> None:
    gc.enable()
    with pytest.raises(KeyboardInterrupt), collector.paused():
        raise KeyboardInterrupt
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with collector.paused():
        pass
    assert not gc.isenabled()
