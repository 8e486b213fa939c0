import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sharpen.rewards import FunctionReward, check
from sharpen.rewards.math import verifier as math_reward
from sharpen.rewards.math.verifier import Math, equal
from sharpen.rewards.text.extraction import is_solution
from sharpen.system.workers import Exhausted
from sharpen.types import Score

HANGS = r"9^{9^{9^9}}"


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers() -> Iterator[None]:
    yield
    math_reward._workers.close()


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
        ({}, r"\boxed{1/2}", 0.5, 1.0),
        ({}, rf"\boxed{{{'1+' * 3000}1}}", "3001", 0.0),
        ({}, rf"\boxed{{{'(' * 40}5{')' * 40}}}", "5", 0.0),
        ({"answer_from": "marker"}, "#### 72", "60+12=72\n#### 72", 1.0),
        ({"answer_from": "marker"}, "#### 73", "60+12=72\n#### 72", 0.0),
        ({"answer_from": "tags"}, "<answer>x=5</answer>", "5", 1.0),
        ({"answer_from": "last_number"}, "one half, 1/2", "0.5", 1.0),
        ({"answer_from": "last_number"}, "no number", "0.5", 0.0),
    ],
)
def test_math(settings: dict[str, Any], completion: str, expected: str, reward: float) -> None:
    assert Math(**settings)(completion, answer=expected) == reward


@pytest.mark.parametrize(
    "solution",
    [
        r"So there are \boxed{5} ways.",
        r"So there are $\boxed {5}$ ways.",
        r"So there are $\boxed 5$ ways, not \$6.",
        r"So it is \fbox{5}.",
        r"First \fbox{4}, then \boxed5.",
        "2+3=<<2+3=5>>5\n#### 5",
        "由题意得 x＝５，故答案为：５。",
        "We add them, so the final answer is 5.",
        "Adding gives 2+3.\nAnswer: 5",
        "The answer is 5. This completes the proof.",
    ],
)
def test_the_expected_answer_is_taken_from_the_end_of_a_solution(solution: str) -> None:
    assert [Math()(completion, answer=solution) for completion in (r"\boxed{5}", r"$\boxed 5$.", r"\fbox{6}")] == [
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    "solution",
    [
        "The answer is not 5. Hence it must be six, as one sees when one counts both hands",
        "The answer is obtained by adding the two numbers that were given to us here.\n12",
        "答案见下\n12",
    ],
)
def test_a_sentence_about_the_answer_is_not_taken_for_it(solution: str) -> None:
    assert Math().doubt({"answer": solution}, "") is not None


def test_a_box_without_braces_holds_one_word() -> None:
    assert Math()(r"\boxed 5 or 6", answer="6") == 0
    assert Math()(r"\boxed{5} or \boxed", answer="5") == 1
    assert Math()(r"\boxedly 5", answer="5") == 0


def test_a_solution_without_an_answer_is_found_by_the_check() -> None:
    rows = [
        {"prompt": "two and three", "answer": "Two and three make five, as one can see by counting on one hand."},
        {"prompt": "two and four", "answer": r"Two and four make six, as one can see by counting on hands: \boxed{6}"},
    ]
    (finding,) = check(Math(), rows).findings
    assert finding.startswith("no completion can be right on 1 of the rows: column `answer` has a solution without")
    assert finding.endswith("the first is rows given as a list, row 1")


@pytest.mark.parametrize(
    "answer",
    [
        "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}",
        r"\sqrt{\frac{\alpha}{\beta}} + \sin\theta + \cos\theta + \tan\theta + \ln\gamma + \exp\delta",
    ],
)
def test_an_answer_in_latex_is_no_solution(answer: str) -> None:
    assert not is_solution(answer)
    assert is_solution(f"First we add.\nThen {answer}")


def test_a_comparison_that_hangs_is_ended_and_recorded(group: Any) -> None:
    assert equal("4", "2+2")
    start = time.monotonic()
    reward = FunctionReward(Math(timeout_s=0.3))
    (scores,) = reward.score([group([rf"\boxed{{{HANGS}}}", r"\boxed{5}"], answer="5")])
    assert time.monotonic() - start < 5
    assert scores[0] == Score(0.0, {"math": 0.0}, timed_out=True, refused="math: no answer within 0.3 s")
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


def test_a_comparison_that_hangs_stops_no_other() -> None:
    def hang() -> None:
        with pytest.raises(Exhausted):
            equal("6", HANGS, 3.0)

    hanging = threading.Thread(target=hang)
    assert equal("4", "2+2")
    start = time.monotonic()
    hanging.start()
    assert [equal("100", f"{i}+{100 - i}") for i in range(20)] == [True] * 20
    assert time.monotonic() - start < 3
    hanging.join(30)


def test_an_expected_answer_that_is_no_mathematics_is_an_error() -> None:
    with pytest.raises(ValueError, match="is empty"):
        equal(" ", "5")


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, r"\boxed{72}"),
        ({"answer_from": "marker"}, "#### 72"),
        ({"answer_from": "tags", "tag": "a"}, "<a>72</a>"),
        ({"answer_from": "last_number"}, "72"),
    ],
)
def test_the_reference_gives_the_rows_answer_where_it_is_looked_for(settings: dict[str, Any], reference: str) -> None:
    verifier = Math(**settings)
    row = {"answer": "60+12=72\n#### 72"}
    assert verifier.reference(row) == reference
    assert verifier(reference, **row) == 1.0
    assert verifier.reference({"answer": None}) is None
