"""Several learners, each on its share of every step, train as one does."""

from __future__ import annotations

import pytest

from thread_ranks import on_each
from trajectory_steps import WHOLE, assert_same, float64
from trajectory_variants import BOUND, CUT, CUTS, formula, learned

__all__ = ["float64"]


@pytest.mark.parametrize("name", CUT)
def test_two_learners_have_the_gradient_of_one(name: str) -> None:
    wanted = formula(name)
    for done in on_each(2, lambda rank: learned(name, CUTS[2], ranks=rank)):
        assert_same(done, wanted, BOUND)


@pytest.mark.parametrize("name", CUT)
def test_a_learner_with_nothing_to_do_changes_nothing(name: str) -> None:
    wanted, alone = formula(name), learned(name, WHOLE)
    for done in on_each(2, lambda rank: learned(name, WHOLE, ranks=rank)):
        assert_same(done, wanted, BOUND)
        assert done.report is not None
        assert alone.report is not None
        assert done.report.metrics == pytest.approx(alone.report.metrics, rel=1e-9, abs=1e-12)
