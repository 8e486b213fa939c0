import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sharpen.rewards.code.sources import asserted_functions, parsed


class Waits:
    """Is collected in the middle of something, and lets other threads run then."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(1e-4)


@pytest.fixture
def often_collected() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(100)
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("often_collected")
def test_threads_parse_side_by_side() -> None:
    """Python 3.11 fails about once in 200 times where two threads are within its parser."""
    source = "\n".join(f"assert f([{i}, (2, 3, [4, {i} + 1])]) == {i}" for i in range(50))

    def parse(_: int) -> int:
        for _ in range(3):
            Waits()
        return len(parsed(source).body)

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(parse, range(400))] == [50] * 400


@pytest.mark.parametrize(
    ("line", "setup", "names"),
    [
        ("assert f(1) == 2", "", ("f",)),
        ("assert sorted(f([2])) == [1]", "", ("f",)),
        ("assert f(g(1)) == 2", "", ("f", "g")),
        ("assert list(map(f, [1])) == [2]", "", ("f",)),
        ("assert all(f(x) for x in range(3))", "", ("f",)),
        ("assert math.isclose(f(1), 2)", "import math", ("f",)),
        ("assert os.path.join(f(1))", "import os.path", ("f",)),
        ("assert near(f(1), 2)", "from m import isclose as near", ("f",)),
        ("assert near(f(1), 2)", "def near(a, b):\n    return a == b", ("f",)),
        ("assert f(tree) == 2", "tree = [1]", ("f",)),
        ("assert sum(10, 15) == 6", "", ("sum",)),
    ],
)
def test_the_functions_that_an_assert_tests(line: str, setup: str, names: tuple[str, ...]) -> None:
    assert asserted_functions(line, setup) == names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("f(1) == 2", "contains no assert"),
        ("assert 1 == len(list([1]))", "calls no function of the program"),
        ("assert True", "calls no function of the program"),
        ("assert math.isclose(f(1), 2)", "uses 'math', which is never imported"),
        ("assert f(", "is not valid Python"),
    ],
)
def test_asserts_that_test_nothing(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asserted_functions(line, "")
