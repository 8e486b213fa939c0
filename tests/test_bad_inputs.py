"""A share of the bad inputs; ``python tests/batteries/bad_inputs`` tries all."""

from pathlib import Path

import pytest

from batteries.bad_inputs import Case, cases, check

SHARE = 10
"""One in this many is tried, and of each kind at least the first."""


def _tried() -> list[Case]:
    kinds: set[str] = set()
    found = []
    for place, case in enumerate(case for case in cases() if not case.apart):
        kind = case.name.partition(":")[0]
        if place % SHARE == 0 or kind not in kinds:
            found.append(case)
        kinds.add(kind)
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in _tried()])
def test_a_bad_input_has_its_exit_code_and_its_words(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_a_case_that_is_no_bad_input_is_noticed(tmp_path: Path) -> None:
    """What is not refused, or is refused with other words, fails the case."""
    good = Case("good", ("run", "recipe.yaml", "-q"), ())
    (tmp_path / "a").mkdir()
    with pytest.raises(AssertionError, match="exit code 0, not 2"):
        check(good, tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(AssertionError, match=r"\['seed'\] not in"):
        check(Case("other words", ("run", "recipe.yaml", "training.steps=0"), ("seed",)), tmp_path / "b")
