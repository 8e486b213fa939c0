"""pass@k and maj@k over k from held-out answers, and changes of measures on the same prompts."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpen.errors import DataError
from sharpen.evaluation.estimators import bootstrap_interval
from sharpen.report.page import evaluations as of_page
from sharpen.report.page.answers import Answers
from sharpen.report.page.evaluations import evaluations, paired_changes, resamples_of
from sharpen.runs import sample_files
from sharpen.runs.folder import RunFolder

Row = Mapping[str, Any]


def answers_of(prompt: str, answers: Sequence[str | None], right: str, **columns: Any) -> list[Row]:
    """An answer is right if it is ``right``, and its reward is then 1."""
    return [
        {
            "prompt_id": prompt,
            "prompt": f"the text of {prompt}",
            "completion": f"so {answer}",
            "reward": float(answer == right),
            "tokens": number + 1,
            "finish": "length" if answer is None else "stop",
            "right": answer == right,
            "answer": answer,
            **columns,
        }
        for number, answer in enumerate(answers)
    ]


# pass@1 is 1/4 and 2/4, pass@2 1 - C(3,2)/C(4,2) = 1/2 and 1 - C(2,2)/C(4,2) = 5/6, pass@4 1 and 1.
# maj@2 of the blocks (a, b)(b, c): half of the first's tie; of (x, x)(-, y): the first.
# maj@4: b has two votes, and x has two.
BEFORE = [*answers_of("p1", ["a", "b", "b", "c"], "a"), *answers_of("p2", ["x", "x", None, "y"], "x")]
# p1 now has 3 of 4 right, p2 still has 2.
NOW = [*answers_of("p1", ["a", "a", "b", "a"], "a"), *answers_of("p2", ["x", "x", None, "y"], "x")]


def folder_of(path: Path, by_step: Mapping[int, Sequence[Row]]) -> RunFolder:
    folder = RunFolder(path)
    for step, rows in by_step.items():
        folder.write_held_out(step, rows, every=10)
    return folder


def metrics_of(steps: Sequence[int], *names: str) -> list[dict[str, float]]:
    return [{"step": step, **{f"held_out/{name}": 0.5 for name in names or ("pass@1",)}} for step in steps]


def means(found: Sequence[Mapping[str, float]]) -> list[float]:
    return [estimate["mean"] for estimate in found]


def test_pass_and_maj_over_k_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {0: BEFORE, 10: NOW})
    before, now = evaluations(folder, metrics_of([0, 10]), None)
    assert {key: before[key] for key in ("label", "step", "n", "k")} == {
        "label": "before",
        "step": 0,
        "n": 4,
        "k": [1, 2, 4],
    }
    assert means(before["pass"]) == pytest.approx([3 / 8, (1 / 2 + 5 / 6) / 2, 1.0])
    assert means(before["maj"]) == pytest.approx([3 / 8, ((1 / 2 + 0) / 2 + (1 + 0) / 2) / 2, (0 + 1) / 2])
    assert (now["label"], now["step"]) == ("now", 10)
    assert means(now["pass"]) == pytest.approx([(3 / 4 + 2 / 4) / 2, (1 + 5 / 6) / 2, 1.0])
    # (a, a)(b, a): right, and half of a tie.
    assert means(now["maj"]) == pytest.approx([5 / 8, ((1 + 1 / 2) / 2 + 1 / 2) / 2, 1.0])
    # With two prompts, resampling gives either value alone or their mean.
    assert (before["pass"][0]["low"], before["pass"][0]["high"]) == (1 / 4, 2 / 4)


def test_pass_is_the_share_of_subsets_with_a_right_one_and_intervals_are_over_prompts(tmp_path: Path) -> None:
    """Against all subsets of k, on 12 prompts with 6 answers each."""
    generator = np.random.default_rng(5)
    marks = {f"p{i}": generator.random(6) < generator.random() for i in range(12)}
    rows = [row for p, right in marks.items() for row in answers_of(p, ["a" if r else "b" for r in right], "a")]
    [only] = evaluations(folder_of(tmp_path, {0: rows}), metrics_of([0]), None)
    assert only["k"] == [1, 2, 4, 6]
    for k, found in zip(only["k"], only["pass"], strict=True):
        per_prompt = [np.mean([any(chosen) for chosen in combinations(right, k)]) for right in marks.values()]
        assert found["mean"] == pytest.approx(np.mean(per_prompt))
        low, high = bootstrap_interval(per_prompt, resamples=100_000, seed=1)
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.03)


def test_the_best_is_one_of_its_own_unless_it_is_the_first_or_the_last(tmp_path: Path) -> None:
    folder, rows = folder_of(tmp_path, {0: BEFORE, 10: NOW, 20: BEFORE}), metrics_of([0, 10, 20])
    found = evaluations(folder, rows, 10)
    assert [(one["label"], one["step"]) for one in found] == [("before", 0), ("now", 20), ("best", 10)]
    assert [one["label"] for one in evaluations(folder, rows, 20)] == ["before", "now"]
    assert evaluations(folder, [{"step": 0}], None) == []


def test_without_answers_the_curves_have_the_k_of_the_metrics(tmp_path: Path) -> None:
    """A run of ``log.samples_every: 0``."""
    row = {"held_out/pass@1": 0.25, "held_out/pass@1_low": 0.125, "held_out/pass@1_high": 0.5, "held_out/pass@8": 0.75}
    [found] = evaluations(RunFolder(tmp_path), [{"step": 0, **row}], None)
    assert found == {
        "label": "before",
        "step": 0,
        "n": 8,
        "k": [1, 8],
        "pass": [{"mean": 0.25, "low": 0.125, "high": 0.5}, {"mean": 0.75, "low": None, "high": None}],
        "maj": None,
    }
    [voted] = evaluations(RunFolder(tmp_path), [{"step": 0, **row, "held_out/maj@8": 0.625}], None)
    assert means(voted["maj"]) == [0.25, 0.625]
    assert evaluations(RunFolder(tmp_path), [{"step": 0, "held_out/loss": 2.0}], None) == []


def test_very_many_answers_are_not_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_page, "MOST_ANSWERS", 7)
    folder, rows = folder_of(tmp_path, {0: BEFORE, 10: NOW[:7]}), metrics_of([0, 10])
    before, now = evaluations(folder, rows, None)
    assert (before["k"], means(before["pass"])) == ([1], [0.5])
    assert (now["n"], now["k"]) == (3, [1, 2, 3])
    assert paired_changes(folder, rows) == {}


def test_a_prompt_alone_has_no_interval_and_one_answer_only_k_of_1(tmp_path: Path) -> None:
    [found] = evaluations(folder_of(tmp_path, {0: answers_of("p", ["a"], "a")}), metrics_of([0]), None)
    assert (found["k"], found["pass"], found["maj"]) == (
        [1],
        [{"mean": 1.0, "low": None, "high": None}],
        [{"mean": 1.0, "low": None, "high": None}],
    )


def test_maj_is_there_where_the_reward_extracts_answers(tmp_path: Path) -> None:
    """Also if no completion had one, as at first; of several sources, if each reward does."""
    none = answers_of("p1", [None] * 4, "a")
    [found] = evaluations(folder_of(tmp_path / "none", {0: none}), metrics_of([0]), None)
    assert means(found["maj"]) == [0.0, 0.0, 0.0]
    without = [{key: value for key, value in row.items() if key != "answer"} for row in BEFORE]
    [found] = evaluations(folder_of(tmp_path / "without", {0: without}), metrics_of([0]), None)
    assert found["maj"] is None
    both = [*answers_of("p1", ["a"] * 4, "a", source="voted"), *answers_of("p2", [None] * 4, "a", source="other")]
    [found] = evaluations(folder_of(tmp_path / "both", {0: both}), metrics_of([0]), None)
    assert (means(found["pass"]), found["maj"]) == ([0.5, 0.5, 0.5], None)


NAMES = ("pass@1", "pass@2", "maj@4", "reward", "reward/style", "length", "truncated")


def test_changes_are_differences_of_each_prompt(tmp_path: Path) -> None:
    before = [{**row, "reward/style": 0.5 if row["prompt_id"] == "p1" else None} for row in BEFORE]
    now = [{**row, "reward/style": 0.75 if row["prompt_id"] == "p1" else None, "tokens": 10} for row in NOW]
    found = paired_changes(folder_of(tmp_path, {0: before, 10: now}), metrics_of([0, 10], *NAMES, "unheard"))
    assert {name: change.mean for name, change in found.items()} == pytest.approx(
        {
            "pass@1": (2 / 4 + 0) / 2,
            "pass@2": (1 / 2 + 0) / 2,
            "maj@4": (1 + 0) / 2,
            "reward": (2 / 4 + 0) / 2,
            # It does not apply to p2.
            "reward/style": 0.25,
            # Before, 1, 2, 3 and 4 tokens.
            "length": 7.5,
            "truncated": 0.0,
        }
    )
    # Of p1 alone, of p2 alone, or of both.
    assert (found["pass@1"].low, found["pass@1"].high) == (0.0, 0.5)
    assert math.isnan(found["reward/style"].low)
    # Equal on both prompts, though the prompts differ: no doubt is left.
    assert (found["length"].low, found["length"].high) == (7.5, 7.5)


def test_what_varies_between_prompts_is_no_doubt_about_the_change(tmp_path: Path) -> None:
    """Hard and easy prompts that all gain 0.1: the measures' intervals overlap, the change's excludes 0."""
    levels = [i / 20 for i in range(18)]

    def rows(gain: float) -> list[Row]:
        return [
            {**row, "reward": level + gain}
            for i, level in enumerate(levels)
            for row in answers_of(f"p{i}", ["a", "b"], "a")
        ]

    change = paired_changes(folder_of(tmp_path, {0: rows(0), 10: rows(0.1)}), metrics_of([0, 10], "reward"))["reward"]
    assert (change.mean, change.low, change.high) == pytest.approx((0.1, 0.1, 0.1))
    low, high = bootstrap_interval(levels)
    assert high - low > 0.2


def test_a_prompt_that_was_replaced_by_another_is_not_compared_with_it(tmp_path: Path) -> None:
    """The held-out rows were changed while the run was stopped, and rows are named by their numbers."""
    other = [{**row, "prompt": "another"} if row["prompt_id"] == "p1" else row for row in NOW]
    found = paired_changes(folder_of(tmp_path / "some", {0: BEFORE, 10: other}), metrics_of([0, 10], "pass@1"))
    assert found["pass@1"].mean == 0
    assert math.isnan(found["pass@1"].low)
    none = [{**row, "prompt": "another"} for row in NOW]
    assert paired_changes(folder_of(tmp_path / "none", {0: BEFORE, 10: none}), metrics_of([0, 10], "pass@1")) == {}


def test_changes_of_several_sources_are_over_their_own_prompts(tmp_path: Path) -> None:
    def rows(first: Sequence[str], second: Sequence[str]) -> list[Row]:
        # The same id in both.
        return [*answers_of("p1", first, "a", source="one"), *answers_of("p1", second, "a", source="two")]

    folder = folder_of(tmp_path, {0: rows("bb", "ab"), 10: rows("ab", "aa")})
    names = ("pass@1", "one/pass@1", "two/pass@1", "two/pass@2")
    found = paired_changes(folder, metrics_of([0, 10], *names))
    assert {name: change.mean for name, change in found.items()} == {
        "pass@1": 0.5,
        "one/pass@1": 0.5,
        "two/pass@1": 0.5,
        "two/pass@2": 0.0,
    }


def test_one_evaluation_or_none_on_disk_has_no_change(tmp_path: Path) -> None:
    assert paired_changes(folder_of(tmp_path / "one", {0: BEFORE}), metrics_of([0])) == {}
    assert paired_changes(folder_of(tmp_path / "first", {0: BEFORE}), metrics_of([0, 10])) == {}
    assert paired_changes(RunFolder(tmp_path / "none"), metrics_of([0, 10])) == {}


def test_answers_are_gone_through_again_only_when_they_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows, looked = folder_of(tmp_path, {0: BEFORE, 10: NOW}), metrics_of([0, 10]), list[int]()
    of = Answers.of

    def counted(table: Any) -> Answers:
        looked.append(len(table))
        return of(table)

    monkeypatch.setattr(Answers, "of", counted)
    first = evaluations(folder, rows, None), paired_changes(folder, rows)
    assert len(looked) == 4
    assert (evaluations(folder, rows, None), paired_changes(RunFolder(tmp_path), rows)) == first
    assert len(looked) == 4
    # A run that was resumed from an earlier checkpoint may write other answers.
    folder.write_held_out(10, BEFORE, every=10)
    assert paired_changes(folder, rows)["pass@1"].mean == 0
    assert means(evaluations(folder, rows, None)[1]["pass"])[0] == 3 / 8
    # Two evaluations in a merged file have the same file, and are not mixed up.
    monkeypatch.setattr(sample_files, "MERGED_STEPS", 2)
    folder.write_held_out(20, NOW, every=10)
    assert folder.held_out_files.written(10) == folder.held_out_files.written(20)
    assert means(evaluations(folder, metrics_of([10, 20]), None)[0]["pass"])[0] == 3 / 8
    assert means(evaluations(folder, metrics_of([10, 20]), None)[1]["pass"])[0] == 5 / 8


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {0: BEFORE, 10: NOW})
    bad = tmp_path / "held_out" / "step_000010.parquet"
    bad.write_bytes(bad.read_bytes()[:-9])
    for read in (evaluations, lambda folder, rows, best: paired_changes(folder, rows)):
        with pytest.raises(DataError, match=rf"{bad}: damaged"):
            read(folder, metrics_of([0, 10]), None)


def test_a_reward_that_failed_everywhere_has_no_value(tmp_path: Path) -> None:
    failed = [{**row, "reward": None} for row in BEFORE]
    folder = folder_of(tmp_path, {0: failed, 10: NOW})
    assert set(paired_changes(folder, metrics_of([0, 10], "reward", "pass@1"))) == {"pass@1"}
    table = folder.held_out_files.of_step(0)
    assert table is not None
    assert Answers.of(table).values("reward") == {}


@pytest.mark.parametrize(("prompts", "resamples"), [(1, 2_000), (2_000, 2_000), (10_000, 400), (1_000_000, 200)])
def test_many_prompts_are_resampled_less_often(prompts: int, resamples: int) -> None:
    assert resamples_of(prompts) == resamples
