"""A reward is asked what right answers, wrong answers and cheats are worth."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from sharpen.errors import DataError, RewardError
from sharpen.rewards import FunctionReward, RewardReport, WeightedSum, check
from sharpen.rewards.checking.cheats import CHEATS, Cheat
from sharpen.rewards.checking.probe import MOST_HANGS
from sharpen.rewards.checking.report import CheatResult

PRODUCTS = [
    {"prompt": f"Give {a}·{b}.", "answer": f"{a * b}", "said": f"<think>{a}·{b}</think><answer>{a * b}</answer>"}
    for a in (11, 12, 13)
    for b in (7, 8, 9)
]
"""Nine rows; no answer of one is that of another or next to it."""


def result(report: RewardReport, name: str) -> CheatResult:
    return next(found for found in report.results if found.cheat.name == name)


def passing(report: RewardReport) -> set[str]:
    return {found.cheat.name for found in report.results if found.passes}


def exact(completion: str, answer: str) -> float:
    """A sound reward."""
    return float(completion == answer)


def generous(completion: str, answer: str) -> float:
    """Takes an empty completion for a right one."""
    return float(completion.strip() in ("", answer))


def contains(completion: str, answer: str) -> float:
    """The commonest mistake: an answer anywhere counts."""
    return float(answer in completion)


def last_number(completion: str, answer: str) -> float:
    found = re.findall(r"\d+", completion)
    return float(bool(found) and found[-1] == answer)


def format_only(completion: str) -> float:
    return float(re.fullmatch(r"<think>[^<]+</think>\s*<answer>[^<]*\w[^<]*</answer>", completion) is not None)


def test_a_sound_reward_has_no_findings() -> None:
    report = check(exact, PRODUCTS)
    assert report.ok
    assert report.findings == ()
    assert (report.references.full, report.references.tried, report.references.origin) == (9, 9, "column `answer`")
    assert passing(report) == set()
    assert [found.cheat.name for found in report.results] == list(CHEATS)
    assert (report.reward, report.rows, report.threshold, report.errors, report.stops) == ("exact", 9, 1.0, (), ())


def test_a_reward_for_nothing_at_all_is_found_with_an_example() -> None:
    report = check(generous, PRODUCTS)
    assert passing(report) == {"empty", "blank"}
    found = result(report, "empty")
    assert (found.accepted, found.tried) == (9, 9)
    assert found.example is not None
    assert (found.example.text, found.example.where) == ("", "rows given as a list, row 1")
    assert len(report.findings) == 2
    assert "empty passes on 9 of 9 rows" in report.findings[0]


def test_what_is_allowed_still_shows_and_is_no_finding() -> None:
    report = check(generous, PRODUCTS, allow=["empty", "blank"])
    assert report.ok
    assert passing(report) == {"empty", "blank"}
    assert result(report, "empty").allowed
    assert not check(generous, PRODUCTS, allow=["empty"]).ok


def test_an_answer_that_counts_anywhere_is_found_by_the_cheats_that_give_many() -> None:
    given_many = {"every_number", "hedged", "buried", "several_boxed", "several_markers", "several_tags"}
    assert passing(check(contains, PRODUCTS)) == given_many | {"thoughts_only"}


def test_to_take_the_last_number_is_no_mistake() -> None:
    """Whoever puts the right one of several answers last knows which it is."""
    report = check(last_number, PRODUCTS)
    assert report.ok, report.findings
    assert result(report, "hedged").tried == 9


def test_a_reward_of_the_format_alone_has_to_be_allowed() -> None:
    report = check(format_only, PRODUCTS, reference="said")
    assert (report.references.full, report.references.origin) == (9, "column `said`")
    assert passing(report) == {"wrong_answer", "off_by_one", "format_filled", "look_alikes"}
    assert not report.ok
    assert check(format_only, PRODUCTS, reference="said", allow=sorted(passing(report))).ok


def test_references_that_get_no_full_reward_are_a_finding_with_row_and_reward() -> None:
    rows = [*PRODUCTS[:4], {**PRODUCTS[4], "said": "no idea"}, *PRODUCTS[5:]]
    report = check(format_only, rows, reference="said", allow=CHEATS)
    assert [trial.text for trial in report.references.failed] == ["no idea"]
    (finding,) = report.findings
    assert "1 of 9 references do not get a full reward" in finding
    assert "row 5: 'no idea' (reward 0)" in finding


def test_without_references_the_check_says_so_unless_that_is_allowed() -> None:
    rows = [{"prompt": "Tell me a story."}, {"prompt": "Sing."}]

    def sea_shanty(completion: str) -> float:
        return float("the wide blue sea" in completion)

    (finding,) = check(sea_shanty, rows).findings
    assert "no reference completions are known" in finding
    assert check(sea_shanty, rows, allow=["no_reference"]).ok


def test_a_row_without_a_reference_among_others_is_named() -> None:
    rows = [*PRODUCTS[:2], {**PRODUCTS[2], "answer": None}]
    (finding,) = check(exact, rows).findings
    assert finding.startswith("1 rows have no reference; the first is rows given as a list, row 3.")


def test_the_threshold_says_what_is_full() -> None:
    def halved(completion: str, answer: str) -> float:
        return 0.5 * exact(completion, answer)

    assert "(reward 0.5)" in check(halved, PRODUCTS).findings[0]
    assert check(halved, PRODUCTS, threshold=0.5).ok


def test_a_sum_that_rounds_below_the_threshold_is_shown_in_full() -> None:
    weighted = WeightedSum([(FunctionReward(exact), weight) for weight in (0.7, 0.2, 0.1)])
    assert "(reward 0.99999999999999989)" in check(weighted, PRODUCTS).findings[0]


def test_errors_are_reported_and_are_no_findings_by_themselves() -> None:
    def picky(completion: str, answer: str) -> float:
        if not completion:
            raise ValueError("nothing was said")
        return exact(completion, answer)

    report = check(picky, PRODUCTS)
    assert report.ok
    assert {trial.text for trial in report.errors} == {""}
    assert len(report.errors) == 9
    assert "nothing was said" in str(report.errors[0].score.error)


def test_what_would_stop_a_run_is_a_finding() -> None:
    def broken(completion: str, answer: str) -> float:
        return float("nan") if completion == "NaN" else exact(completion, answer)

    (finding,) = check(broken, PRODUCTS).findings
    assert "would stop a run" in finding
    assert "returned nan" in finding


def test_a_reward_that_hangs_on_a_completion_is_ended_and_named() -> None:
    def hangs(completion: str, answer: str) -> float:
        while completion == "" and answer == "77":
            pass
        return exact(completion, answer)

    report = check(hangs, PRODUCTS, timeout_s=1.0)
    (finding,) = report.findings
    assert "1 completions would stop a run" in finding
    assert "no answer within 1 s" in finding
    assert report.timing.slowest.text == ""
    assert report.timing.slowest.seconds >= 1.0
    assert len(report.results) == len(CHEATS)


def test_a_pattern_that_takes_forever_is_ended_too() -> None:
    def exponential(completion: str, answer: str) -> float:
        return float(re.fullmatch(r"(a+)+b", completion) is not None) or exact(completion, answer)

    report = check(exponential, PRODUCTS[:2], timeout_s=1.0)
    assert {trial.text for trial in report.stops} == {"a" * 20_000}


def test_a_reward_that_always_hangs_ends_the_check() -> None:
    def never(completion: str, answer: str) -> float:
        time.sleep(60)
        return 1.0

    started = time.monotonic()
    report = check(never, PRODUCTS, timeout_s=0.1)
    assert time.monotonic() - started < 5
    assert len(report.stops) == MOST_HANGS
    assert report.findings[0] == "the check ended early: gave up after 3 calls without an answer within 0.1 s"


@pytest.mark.parametrize("run", [exec, eval])
def test_a_reward_that_runs_the_completion_in_this_process_is_found_before_it_ends_the_process(run: Any) -> None:
    def runs(completion: str, answer: str) -> float:
        try:
            run(completion, {})
        except BaseException:  # noqa: BLE001 - as such a reward would
            return exact(completion, answer)
        return 0.0

    report = check(runs, PRODUCTS[:2])
    assert "runs_in_process" in passing(report)
    assert result(report, "runs_in_process") == report.results[-1]
    assert any("runs_in_process passes on 2 of 2 rows" in finding for finding in report.findings)


def test_a_guess_that_is_right_for_half_of_the_rows_is_named() -> None:
    rows = [{"prompt": f"Is {n} even?", "answer": "False" if n % 2 else "True"} for n in range(20)]
    report = check(exact, rows)
    found = result(report, "literals")
    assert (found.attempt, found.accepted, found.tried, found.passes) == ("'True', plain", 10, 20, True)


@pytest.mark.parametrize(
    ("tolerated", "accepted", "tried", "passes"),
    [
        (0, 0, 100, False),
        (0, 1, 100, True),
        (0.05, 5, 100, False),
        (0.05, 6, 100, True),
        (0.05, 1, 10, False),
        (0.05, 2, 10, True),
        (0.05, 1, 1, True),
        (0.05, 0, 0, False),
    ],
)
def test_luck_may_be_had_on_the_tolerated_share_of_rows_or_once(
    tolerated: float, accepted: int, tried: int, passes: bool
) -> None:
    cheat = Cheat("c", "", lambda case: {}, tolerated)
    assert CheatResult(cheat, None, accepted, tried, None, None, allowed=False).passes is passes


def test_rows_are_spaced_evenly_and_keep_their_names() -> None:
    rows = [{"prompt": str(n), "answer": f"of {n}"} for n in range(1000)]
    seen: list[str] = []

    def watching(completion: str, prompt: str, answer: str) -> float:
        seen.append(prompt)
        return exact(completion, answer)

    report = check(watching, rows, at_most=4, cheat_at_most=2)
    assert set(seen) == {"0", "250", "500", "750"}
    assert (report.rows, result(report, "wrong_answer").tried, result(report, "empty").tried) == (4, 4, 2)
    assert check(generous, rows, at_most=4).results[2].example.where == "rows given as a list, row 1"  # type: ignore[union-attr]


def test_an_unknown_name_or_column_is_an_error_with_the_nearest() -> None:
    with pytest.raises(RewardError, match=r"no cheat 'format_onyl' to allow\. Did you mean `format_only`"):
        check(exact, PRODUCTS, allow=["format_onyl"])
    with pytest.raises(DataError, match=r"no column 'sayd' with references\. Did you mean `said`"):
        check(exact, PRODUCTS, reference="sayd")
    with pytest.raises(RewardError, match="needs the column 'answer'"):
        check(exact, [{"prompt": "1+1="}])


def test_every_cheat_is_explained_in_a_line() -> None:
    assert all(cheat.why and "\n" not in cheat.why and not cheat.why.endswith(".") for cheat in CHEATS.values())
    assert all(name == cheat.name for name, cheat in CHEATS.items())
