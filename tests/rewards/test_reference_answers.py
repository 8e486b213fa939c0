"""A reference is a completion that gets a full reward."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.data.tasks import TASKS, resolve_task
from sharpen.rewards import check
from sharpen.rewards.checking.case import Case, off_by_one, wrong_answers
from sharpen.rewards.checking.cheats import CHEATS
from sharpen.rewards.math.verifier import Math
from sharpen.rewards.text.extraction import Source
from sharpen.rewards.text.regex import Regex
from sharpen.rewards.text.verifiers import Contains, ExactAnswer, Tags
from sharpen.rewards.verifier import Verifier
from sharpen.types import Prompt

ROW = {"prompt": "What is 6 times 7?", "answer": "42"}
SOURCES: tuple[Source, ...] = ("whole", "marker", "tags", "boxed", "last_number")
FORMS = {"whole": "42", "marker": "#### 42", "tags": "<answer>42</answer>", "boxed": "\\boxed{42}", "last_number": "42"}


@pytest.mark.parametrize("kind", [ExactAnswer, Math])
@pytest.mark.parametrize("source", SOURCES)
def test_the_reference_is_in_the_form_that_is_read(kind: type[ExactAnswer | Math], source: Source) -> None:
    verifier = kind(answer_from=source)
    assert verifier.reference(ROW) == FORMS[source]
    assert verifier(FORMS[source], **ROW) == 1


@pytest.mark.parametrize(
    ("verifier", "row", "reference"),
    [
        (ExactAnswer(answer_from="marker"), {"answer": "6·7 is 42.\n#### 42"}, "#### 42"),
        (ExactAnswer(answer_from="marker", marker="A:"), {"answer": "42"}, "A: 42"),
        (ExactAnswer(answer_from="tags", tag="final"), {"answer": 42}, "<final>42</final>"),
        (Math(), {"answer": "so it is \\boxed{\\frac{1}{2}}"}, "\\boxed{\\frac{1}{2}}"),
        (Math(answer_from="marker"), {"answer": "#### 1,234"}, "#### 1,234"),
        (ExactAnswer(), {"answer": None}, None),
        (Math(), {}, None),
        (Contains(words=("river", "dog")), {}, "river dog"),
        (Contains(words=("river", "dog"), mode="any"), {}, "river"),
        (Contains(column="words"), {"words": ["a", "b"]}, "a b"),
        (Contains(column="words"), {"words": None}, None),
        (Regex(pattern=".+"), {"answer": "42"}, None),
        (Tags(), {"answer": "42"}, None),
    ],
)
def test_references_of_verifiers(verifier: Verifier, row: dict[str, Any], reference: str | None) -> None:
    assert verifier.reference(row) == reference
    if reference is not None:
        assert verifier(reference, **row) == 1


@pytest.mark.parametrize("tags", [Tags(), Tags(prefilled=True), Tags(tags=("plan", "work", "result"))])
def test_tags_are_put_around_an_answer(tags: Tags) -> None:
    assert tags(tags.around("42")) == 1
    assert tags.around("42").endswith(f"\n42\n</{tags.tags[-1]}>")


@pytest.mark.parametrize("spec", [*TASKS, "arithmetic?terms=5&digits=2", "sums?worked_example=true"])
def test_every_task_knows_a_right_completion_of_each_row(spec: str) -> None:
    task = resolve_task(spec)
    rows = [*task.held_out_rows()][:50]
    for row in rows:
        reference = task.reference(row)
        assert reference is not None
        assert task.verify(reference, **row) == 1


def test_arithmetic_is_written_out() -> None:
    row = {"prompt": "4+5-3=", "answer": "6"}
    assert resolve_task("arithmetic").reference(row) == "4+5=9;9-3=6#6"


@pytest.mark.parametrize(
    ("reward", "origin"),
    [
        ([{"name": "exact_answer", "answer_from": "tags"}, "tags"], ", within the tags <think>, <answer>"),
        ([{"name": "exact_answer", "answer_from": "boxed"}, "tags"], ", within the tags <think>, <answer>"),
        ([{"name": "exact_answer", "answer_from": "marker"}, "tags"], ", within the tags <think>, <answer>"),
        (["exact_answer", {"name": "tags", "weight": 0}], ""),
    ],
)
def test_references_of_combined_rewards_satisfy_all_of_them(reward: list[Any], origin: str) -> None:
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(50, 58)]
    report = check(
        reward, rows, threshold=sum(item.get("weight", 1) if isinstance(item, dict) else 1 for item in reward)
    )
    assert report.references.full == 8
    assert report.references.origin == f"the answer that exact_answer expects{origin}"
    assert report.ok, report.findings


def test_parts_that_no_completion_satisfies_together_are_a_finding() -> None:
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(50, 58)]
    report = check(["exact_answer", "tags"], rows, threshold=2)
    assert "8 of 8 references do not get a full reward" in report.findings[0]


def test_a_function_gets_the_answer_in_the_form_that_it_reads() -> None:
    def boxed(completion: str, answer: str) -> float:
        return float(completion == f"\\boxed{{{answer}}}")

    rows = [{"prompt": f"{n}+1=", "answer": n + 1} for n in range(50, 58)]
    report = check(boxed, rows)
    assert report.references.origin == "column `answer`, as '\\\\boxed{…}'"
    assert report.ok, report.findings


def test_demonstrations_and_a_functions_own_references_are_tried() -> None:
    def shouted(completion: str, word: str) -> float:
        return float(completion == word.upper())

    rows = [{"prompt": f"Shout {w}.", "word": w, "completion": w.upper()} for w in ("sea", "rain", "wood")]
    assert check(shouted, rows).references.origin == "column `completion`"
    asked = {"role": "user", "content": "Shout."}
    conversations = [
        {"word": row["word"], "messages": [asked, {"role": "assistant", "content": row["completion"]}]} for row in rows
    ]
    assert check(shouted, conversations).references.full == 3
    shouted.reference = lambda row: row["word"].upper()  # type: ignore[attr-defined]
    assert check(shouted, [{"word": w, "prompt": "Shout."} for w in ("sea", "rain")]).references.full == 2


@pytest.mark.parametrize(
    ("text", "by", "changed"),
    [("#42", 1, "#43"), ("4+5=9#9", -1, "4+5=9#8"), ("0", -1, None), ("a", 1, None), ("007", 1, "008")],
)
def test_off_by_one(text: str, by: int, changed: str | None) -> None:
    assert off_by_one(text, by) == changed


def test_the_last_number_of_a_program_is_left_alone() -> None:
    prompt = Prompt("p", (0,), "", {})
    program = Case("row 1", prompt, "", reference="def area(r):\n    return round(3.14159 * r * r, 2)\n")
    solution = Case("row 1", prompt, "", reference="Each has 3.\nTogether they have 6.")
    assert CHEATS["off_by_one"].attempts(program) == {}
    assert CHEATS["off_by_one"].attempts(solution)["+1"] == ("Each has 3.\nTogether they have 7.",)


def test_wrong_answers_are_the_neighbours_and_those_of_other_rows_but_never_the_right_one() -> None:
    assert wrong_answers("5", ["7", "5.0", "9", "9"]) == ("6", "4", "7", "8", "9")
    assert wrong_answers("Paris", ["paris ", "Rome", "Oslo"], at_most=1) == ("Rome",)
