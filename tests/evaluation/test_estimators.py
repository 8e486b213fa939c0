from itertools import combinations
from math import comb

import numpy as np
import pytest

from sharpen.evaluation.estimators import bootstrap_interval, estimate, majority_at_k, pass_at_k


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_completion(n: int) -> None:
    for c in range(n + 1):
        right = [i < c for i in range(n)]
        for k in range(1, n + 1):
            share = np.mean([any(subset) for subset in combinations(right, k)])
            assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_for_many_completions_and_prompts() -> None:
    n, c = np.array([64, 10_000, 10_000]), np.array([32, 3, 10_000])
    expected = [1 - comb(32, 8) / comb(64, 8), 1 - comb(9_997, 8) / comb(10_000, 8), 1.0]
    np.testing.assert_allclose(pass_at_k(n, c, 8), expected, rtol=1e-10)
    np.testing.assert_allclose(pass_at_k(64, np.arange(65), 1), np.arange(65) / 64)
    assert pass_at_k(64, np.array([0, 1, 64]), 64).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        ([8, 4], [1, 1], 8, "at least 8 completions"),
        (8, 9, 1, "between 0"),
        (8, -1, 1, "between 0"),
        (8, 1, 0, "at least 1"),
    ],
)
def test_pass_at_k_refuses(n: object, c: object, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["5", "5", "6", "7"], "5", 1.0),
        (["5", "6", "6", "7"], "5", 0.0),
        (["5", "5", "6", "6"], "5", 1 / 2),
        (["5", "6", "7", None], "5", 1 / 3),
        (["5", None, None, None], "5", 1.0),
        ([None, None, None, None], "5", 0.0),
    ],
)
def test_majority_of_one_block(answers: list[str | None], right: str, expected: float) -> None:
    correct = [answer == right for answer in answers]
    assert majority_at_k([answers], [correct], 4).tolist() == pytest.approx([expected])


def test_majority_is_the_mean_over_blocks_without_the_remainder() -> None:
    answers = [["1", "1", "2", "2", "2", "1", "1"], ["3", "4", "3", "4", "5", "6", "3"]]
    correct = [[a == "1" for a in answers[0]], [a == "3" for a in answers[1]]]
    # Prompt 1: {1,1,2} right, {2,2,1} wrong. Prompt 2: {3,4,3} right, {4,5,6} wrong. The last
    # completions are left over.
    assert majority_at_k(answers, correct, 3).tolist() == [0.5, 0.5]
    # k = 1 is the mean of `correct`.
    np.testing.assert_allclose(majority_at_k(answers, correct, 1), [4 / 7, 3 / 7])


def test_majority_counts_the_share_that_is_right_among_equal_answers() -> None:
    assert majority_at_k([["a", "a", "b"]], [[True, False, True]], 3).tolist() == [0.5]


def test_majority_refuses() -> None:
    with pytest.raises(ValueError, match="at least 8 completions"):
        majority_at_k([["1"]], [[True]], 8)
    with pytest.raises(ValueError, match="2 answers"):
        majority_at_k([["1", "2"]], [[True]], 1)
    with pytest.raises(ValueError, match="at least 1"):
        majority_at_k([["1"]], [[True]], 0)


def test_bootstrap_of_two_values_is_exact() -> None:
    # The mean of two draws from {0, 1} is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: the 95 % interval is the
    # whole range, the middle 40 % is the single point 1/2.
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)


def test_bootstrap_comes_near_the_normal_interval() -> None:
    values = np.arange(400) % 2.0
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.003)
    assert bootstrap_interval(values) == (low, high)


def test_bootstrap_covers_the_true_mean() -> None:
    generator = np.random.default_rng(3)
    intervals = [bootstrap_interval(generator.random(50) < 0.3, resamples=500) for _ in range(400)]
    covered = np.mean([low <= 0.3 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.98


def test_bootstrap_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(20.0)
    whole = bootstrap_interval(values, resamples=100)
    monkeypatch.setattr("sharpen.evaluation.estimators._RESAMPLES_AT_ONCE", 70)
    assert bootstrap_interval(values, resamples=100) == whole


def test_one_prompt_has_no_interval() -> None:
    result = estimate([0.25])
    assert result.mean == 0.25
    assert np.isnan(result.low)
    assert np.isnan(result.high)


def test_estimate_and_refusals() -> None:
    result = estimate([0.0, 1.0, 1.0, 1.0])
    assert (result.mean, result.low, result.high) == (0.75, 0.25, 1.0)
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([0.1, float("nan")])
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([0.1, 0.2], level=95)
