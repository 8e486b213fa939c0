"""What rows of each kind are taken for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.data.formats import user_rows
from sharpen.data.rows import read_rows
from sharpen.errors import DataError
from sharpen.scaffold.answers import look_at_answers
from sharpen.scaffold.choose import METHODS, READS
from sharpen.scaffold.findings import Findings
from sharpen.scaffold.holding_out import how_to_hold_out
from sharpen.scaffold.readable import readable
from sharpen.scaffold.source import find_source

NAMES = ("train", "held_out")
ASK = {"role": "user", "content": "How are you?"}
SAY = {"role": "assistant", "content": "Well."}
LONG = "A sentence that is much too long to be compared with a completion as a whole, and no mathematics."


def found(*rows: Mapping[str, Any]) -> Findings:
    return readable(read_rows(list(rows)))[1]


def refusal(*rows: Mapping[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        found(*rows)
    return str(caught.value)


def test_answers_within_an_object_are_found() -> None:
    """As veRL stores them."""
    row = {
        "data_source": "sums",
        "prompt": [ASK],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"answer": "1+1 is 2.\n#### 2", "index": 0},
    }
    read, findings = readable(read_rows([row, row]))
    assert (findings.kind, findings.columns) == ("answers", {"answer": "reward_model.ground_truth"})
    assert [found["answer"] for found in read] == ["2", "2"]
    # Not where only some rows have one, or where there is a completion to imitate.
    assert found(row, {**row, "reward_model": {}, "extra_info": {}}).kind == "prompts"
    assert found({**row, "completion": [SAY]}).kind == "demonstrations"


@pytest.mark.parametrize(
    ("row", "kind", "used"),
    [
        ({"prompt": "1+1=", "answer": 2}, "answers", ["prompt", "answer"]),
        ({"prompt": "1+1=", "id": 7, "ground_truth": "\\frac12"}, "answers", ["prompt", "ground_truth"]),
        ({"prompt": "1+1=", "solution": "So \\boxed{2}.", "level": "hard"}, "answers", ["prompt", "solution"]),
        ({"messages": [ASK], "answer": "yes"}, "answers", ["messages", "answer"]),
        ({"prompt": "1+1=", "completion": "2"}, "demonstrations", ["prompt", "completion"]),
        ({"prompt": [ASK], "completion": [SAY]}, "demonstrations", ["prompt", "completion"]),
        ({"messages": [ASK, SAY]}, "demonstrations", ["messages"]),
        ({"prompt": "How?", "messages": [ASK, SAY]}, "demonstrations", ["messages"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preferences", ["prompt", "chosen", "rejected"]),
        ({"chosen": [ASK, SAY], "rejected": [ASK, ASK]}, "preferences", ["chosen", "rejected"]),
        (
            {"prompt": "a", "completions": ["b", "c"], "scores": [1, 2]},
            "preferences",
            ["prompt", "completions", "scores"],
        ),
        (
            {"prompt": "a", "steps": ["b\n", "c"], "labels": [True, False]},
            "marked steps",
            ["prompt", "steps", "labels"],
        ),
        (
            {"prompt": "a", "tests": [{"input": "1", "output": "2"}], "solutions": ["print(2)"]},
            "tests",
            ["prompt", "tests", "solutions"],
        ),
        (
            {"prompt": "def f():", "test": "def check(candidate): pass", "entry_point": "f"},
            "tests",
            ["prompt", "test", "entry_point"],
        ),
        ({"prompt": "a", "words": ["moon", "river"]}, "words", ["prompt", "words"]),
        ({"prompt": "a", "label": None}, "prompts", ["prompt"]),
        ({"messages": [ASK]}, "prompts", ["messages"]),
    ],
)
def test_rows_are_what_their_columns_say(row: Mapping[str, Any], kind: str, used: list[str]) -> None:
    seen = found(row, row)
    assert seen.kind == kind
    assert list(seen.uses) == used


@pytest.mark.parametrize(
    ("values", "form", "numbers", "worked"),
    [
        ([1, -2, 3.5], "mathematics", True, False),
        (["1,234", "50%", "3/4"], "mathematics", True, False),
        (["\\frac{1}{2}", "x^2+1", "(1,2)"], "mathematics", False, False),
        (["First 2+3.\n#### 5", "#### 1,000"], "mathematics", True, True),
        (["so \\boxed{x+1}", "\\boxed{\\pi}"], "mathematics", False, True),
        (["Paris", "the Nile"], "short text", False, False),
        (["A", "B", "A", "C"], "short text", False, False),
        ([LONG, "short"], "long text", False, False),
    ],
)
def test_answers_are_told_by_their_values(values: list[Any], form: str, numbers: bool, worked: bool) -> None:
    answers = look_at_answers("answer", values)
    assert answers is not None
    assert (answers.form, answers.numbers, answers.worked) == (form, numbers, worked)


def test_few_different_answers_are_choices() -> None:
    answers = look_at_answers("label", ["good", "bad", "good", "bad", "good"])
    assert answers is not None
    assert answers.choices == ("good", "bad")


def test_steps_end_where_there_are_as_many_as_labels() -> None:
    row = {"prompt": "a", "completion": "one\ntwo\n\nthree\nfour", "labels": [1, 0]}
    assert found(row).step_separator == "\n\n"
    assert found({**row, "labels": [1, 1, 0, 0]}).step_separator == "\n"
    assert "nor an empty line" in refusal({**row, "labels": [1, 1, 1]})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"title": "a", "body": "b"}], ["no column of prompts", "`title`, `body`", "data.columns"]),
        ([{"text": LONG}], ["split it into `prompt` and `completion`"]),
        ([{"prompt": "a", "chosen": "b"}], ["no column `rejected` beside `chosen`"]),
        ([{"prompt": "a", "answer": 1}, {"prompt": "b"}], ["row 2", "no value in column `answer`"]),
        ([{"prompt": "a", "answer": 1}, {"prompt": " ", "answer": 1}], ["row 2", "no value in column `prompt`"]),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "completion": "b"}], ["row 2", "`chosen`"]),
        ([{"prompt": "a"}, {"prompt": [ASK]}], ["row 2", "`prompt` holds messages, but a text in", "row 1"]),
        ([{"messages": [ASK, SAY]}, {"messages": [ASK]}], ["row 2", "does not, as a prompt", "rows of one kind"]),
        ([{"prompt": 1}], ["row 1", "`prompt` must be a text or a list of messages, not int"]),
        ([{"prompt": [ASK, SAY], "answer": "a"}], ["row 1", "ends with the assistant", "a prompt must not"]),
        ([{"messages": [{"role": "user"}]}], ["row 1", "message 1 of column `messages` has no `content`"]),
        ([{"prompt": "a", "tests": {"inputs": ["1"], "outputs": []}}], ["row 1", "1 inputs and 0 outputs"]),
        ([{"conversations": [{"from": "narrator", "value": "a"}]}], ["row 1", "'narrator'"]),
    ],
)
def test_rows_that_cannot_be_used_are_named(rows: list[Any], said: list[str]) -> None:
    message = refusal(*rows)
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    ("row", "kind", "columns", "read"),
    [
        ({"question": "1+1?", "answer": 2}, "answers", {}, {"prompt": "1+1?"}),
        ({"prompt": "Who?", "answer": LONG}, "demonstrations", {"completion": "answer"}, {"completion": LONG}),
        (
            {"instruction": "Add.", "input": "1 2", "output": LONG},
            "demonstrations",
            {},
            {"prompt": "Add.\n\n1 2", "completion": LONG},
        ),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            "demonstrations",
            {},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        ),
        (
            {"conversations": [{"from": "human", "value": "Hi"}]},
            "prompts",
            {},
            {"messages": [{**ASK, "content": "Hi"}]},
        ),
        (
            {"question": "a", "preferred": "b", "dispreferred": "c"},
            "preferences",
            {},
            {"prompt": "a", "chosen": "b", "rejected": "c"},
        ),
        (
            {"input": "a", "target": LONG},
            "demonstrations",
            {"prompt": "input", "completion": "target"},
            {"prompt": "a"},
        ),
    ],
)
def test_columns_with_other_names_are_read_as_a_run_reads_them(
    row: Mapping[str, Any], kind: str, columns: Mapping[str, str], read: Mapping[str, Any]
) -> None:
    rows, seen = readable(read_rows([row]))
    assert (seen.kind, seen.columns) == (kind, columns)
    assert {name: rows[0][name] for name in read} == read
    reads = READS[METHODS[seen.kind]]
    assert list(user_rows([row], columns, reads)) == list(rows)


@pytest.mark.parametrize(
    ("train", "beside", "held_out", "name"),
    [
        ("train.jsonl", ["test.jsonl"], "test.jsonl", "sums"),
        ("train.jsonl", ["test.jsonl", "validation.jsonl"], "validation.jsonl", "sums"),
        ("words_train.jsonl", ["words_test.jsonl", "test.jsonl"], "words_test.jsonl", "words"),
        ("words.train.v2.jsonl", ["words.dev.v2.json"], "words.dev.v2.json", "words_v2"),
        ("words.jsonl", ["test.jsonl"], None, "words"),
        ("training-set.jsonl", ["test-set.jsonl"], "test-set.jsonl", "set"),
        ("trainers.jsonl", ["tests.jsonl"], None, "trainers"),
    ],
)
def test_a_file_beside_it_is_held_out(
    train: str, beside: list[str], held_out: str | None, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sums"
    folder.mkdir()
    for file in (train, *beside):
        row = '{"prompt": "a"}\n'
        (folder / file).write_text(f"[{row}]" if file.endswith(".json") else row)
    source = find_source(str(folder / train))
    assert source.held_out == (None if held_out is None else str(folder / held_out))
    assert source.name == name


def test_a_split_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    (folder / "test.jsonl").write_text('{"prompt": "c"}\n')
    source = find_source(str(folder))
    assert source.train == f"{folder}?split=train"
    assert source.held_out == f"{folder}?split=test"
    assert source.held_out_rows is not None
    assert (len(source.rows), len(source.held_out_rows)) == (2, 1)
    assert read_rows(source.held_out)[0] == {"prompt": "c"}


def test_slices_of_a_split_hold_rows_out(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(f'{{"prompt": "{n}"}}\n' for n in range(20)))
    source = find_source(str(folder))
    assert (source.train, source.held_out) == (f"{folder}?split=train", None)
    lines = how_to_hold_out(source).splitlines()
    train, held_out = (read_rows(line.split(": ")[1]) for line in lines if ": " in line and line.split(":")[0] in NAMES)
    assert [row["prompt"] for row in train] == [str(n) for n in range(18)]
    assert [row["prompt"] for row in held_out] == ["18", "19"]
