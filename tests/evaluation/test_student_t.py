"""The interval of a mean over a few runs."""

import math

import pytest

from sharpen.evaluation.student_t import mean_interval, t_quantile


@pytest.mark.parametrize(
    ("level", "degrees", "expected"),
    [
        # The printed tables, e.g. NIST/SEMATECH e-Handbook, 1.3.6.7.2: two-sided 95 % and 99 %.
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.95, 5, 2.571),
        (0.95, 9, 2.262),
        (0.95, 30, 2.042),
        (0.99, 1, 63.657),
        (0.99, 4, 4.604),
        (0.99, 10, 3.169),
    ],
)
def test_quantiles_are_those_of_the_tables(level: float, degrees: int, expected: float) -> None:
    assert t_quantile(level, degrees) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_of_one_and_two_degrees_are_in_closed_form(level: float) -> None:
    assert t_quantile(level, 1) == pytest.approx(math.tan(math.pi / 2 * level), rel=1e-12)
    assert t_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-12)


def test_the_interval_of_three_values_by_hand() -> None:
    # s² = (0.1² + 0 + 0.1²)/2, s/√3 = 0.0577350, times 4.3026527 is 0.2484138.
    estimate = mean_interval([0.5, 0.6, 0.7])
    assert estimate.mean == pytest.approx(0.6)
    assert estimate.low == pytest.approx(0.6 - 0.2484138, abs=1e-7)
    assert estimate.high == pytest.approx(0.6 + 0.2484138, abs=1e-7)


def test_two_values_have_a_wide_interval_and_one_has_none() -> None:
    # s = √2/2·|a − b| = 0.0707, s/√2 = 0.05, times 12.7062.
    assert mean_interval([0.4, 0.5]).high == pytest.approx(0.45 + 0.05 * 12.70620, abs=1e-5)
    alone = mean_interval([0.4])
    assert alone.mean == 0.4
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


@pytest.mark.parametrize("values", [[math.nan, 1.0, 2.0], [math.inf, 1.0], [math.inf, -math.inf], [math.nan]])
def test_what_was_not_measured_has_neither_mean_nor_interval(values: list[float]) -> None:
    estimate = mean_interval(values)
    assert all(map(math.isnan, (estimate.mean, estimate.low, estimate.high)))
