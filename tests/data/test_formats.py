"""Rows as others write them become those that sharpen reads."""

import json
from collections.abc import Mapping
from typing import Any

import datasets
import pytest

from sharpen.data.formats import recognised, renamed, user_rows
from sharpen.data.rows import read_rows
from sharpen.errors import DataError
from sharpen.types import Reads


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def turn(speaker: str, text: str, **more: Any) -> dict[str, Any]:
    return {"from": speaker, "value": text, **more}


HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: A river?\n\nAssistant: "
CALL = {"name": "weather", "arguments": {"city": "Bonn"}}


@pytest.mark.parametrize(
    ("reads", "row", "becomes"),
    [
        (
            "demonstrations",
            {"conversations": [turn("system", "Be brief."), turn("human", "1+1?"), turn("gpt", "2")]},
            {"messages": [system("Be brief."), user("1+1?"), assistant("2")]},
        ),
        (
            "demonstrations",
            {"system": "Be brief.", "conversations": [turn("human", "1+1?"), turn("gpt", "2")]},
            {"messages": [system("Be brief."), user("1+1?"), assistant("2")]},
        ),
        (
            "demonstrations",
            {
                "conversations": [
                    turn("human", "Rain?"),
                    turn("function_call", json.dumps(CALL)),
                    turn("observation", "no"),
                    turn("gpt", "No."),
                ]
            },
            {
                "messages": [
                    user("Rain?"),
                    {**assistant(""), "tool_calls": [{"type": "function", "function": CALL}]},
                    {"role": "tool", "content": "no"},
                    assistant("No."),
                ]
            },
        ),
        ("prompts", {"conversations": [turn("human", "1+1?")], "answer": "2"}, {"messages": [user("1+1?")]}),
        ("prompts", {"conversations": [user("1+1?")]}, {"messages": [user("1+1?")]}),
        (
            "preferences",
            {"conversations": [turn("human", "1+1?")], "chosen": turn("gpt", "2"), "rejected": turn("gpt", "3")},
            {"prompt": [user("1+1?")], "chosen": [assistant("2")], "rejected": [assistant("3")]},
        ),
        (
            "demonstrations",
            {"instruction": "Add.", "input": "1 and 1", "output": "2"},
            {"prompt": "Add.\n\n1 and 1", "completion": "2"},
        ),
        ("demonstrations", {"instruction": "Add 1 and 1.", "input": "", "output": "2"}, {"prompt": "Add 1 and 1."}),
        (
            "demonstrations",
            {"instruction": "And 2?", "input": "", "output": "4", "history": [["1+1?", "2"]], "system": "Be brief."},
            {
                "prompt": [system("Be brief."), user("1+1?"), assistant("2"), user("And 2?")],
                "completion": [assistant("4")],
            },
        ),
        (
            "demonstrations",
            {"instruction": "Which?", "context": "A or B.", "response": "A", "category": "qa"},
            {"prompt": "Which?\n\nA or B.", "completion": "A"},
        ),
        ("prompts", {"instruction": "Add.", "input": "1 and 1", "output": "2"}, {"prompt": "Add.\n\n1 and 1"}),
        ("demonstrations", {"prompt": "1+1?", "response": "2"}, {"completion": "2"}),
        (
            "demonstrations",
            {"question": "1+1?", "answer": "So <<1+1=2>>2.\n#### 2"},
            {"prompt": "1+1?", "completion": "So <<1+1=2>>2.\n#### 2"},
        ),
        ("prompts", {"problem": "1+1?", "solution": "\\boxed{2}", "answer": "2"}, {"prompt": "1+1?"}),
        ("demonstrations", {"prompt": [user("1+1?")], "completion": "2"}, {"completion": [assistant("2")]}),
        ("demonstrations", {"prompt": "1+1?", "completion": [assistant("2")]}, {"prompt": [user("1+1?")]}),
        ("preferences", {"prompt": [user("1+1?")], "chosen": "2", "rejected": "3"}, {"chosen": [assistant("2")]}),
        (
            "preferences",
            {"system": "Be brief.", "question": "1+1?", "chosen": "2", "rejected": "3"},
            {"prompt": [system("Be brief."), user("1+1?")], "chosen": [assistant("2")], "rejected": [assistant("3")]},
        ),
        (
            "preferences",
            {"chosen": f"{HH}The Rhine.\n\nOr the Elbe.", "rejected": f"{HH}No."},
            {
                "chosen": [
                    user("Hi"),
                    assistant("Hello!"),
                    user("A river?"),
                    assistant("The Rhine.\n\nOr the Elbe."),
                ],
                "rejected": [user("Hi"), assistant("Hello!"), user("A river?"), assistant("No.")],
            },
        ),
        (
            "preferences",
            {
                "input": {"messages": [user("1+1?")]},
                "preferred_output": [assistant("2")],
                "non_preferred_output": [assistant("3")],
            },
            {"prompt": [user("1+1?")], "chosen": [assistant("2")], "rejected": [assistant("3")]},
        ),
        (
            "demonstrations",
            {"messages": {"role": ["user", "assistant"], "content": ["1+1?", "2"]}},
            {"messages": [user("1+1?"), assistant("2")]},
        ),
    ],
)
def test_a_form_that_many_have_is_read_as_ours(
    reads: Reads, row: Mapping[str, Any], becomes: Mapping[str, Any]
) -> None:
    rows = recognised(read_rows([row, row]), reads)
    assert [{name: found[name] for name in becomes} for found in rows] == [becomes] * 2
    assert {*row, *becomes} <= {*rows.columns}


@pytest.mark.parametrize(
    ("reads", "row"),
    [
        ("prompts", {"prompt": "1+1?", "answer": "2", "question": "no"}),
        ("demonstrations", {"prompt": "1+1?", "completion": "2", "response": "3"}),
        ("demonstrations", {"prompt": "1+1?", "messages": [user("1+1?"), assistant("2")], "response": "3"}),
        # Which of the two is meant?
        ("demonstrations", {"prompt": "1+1?", "response": "1+1 is 2", "output": "2"}),
        ("demonstrations", {"prompt": "1+1?", "answer": "2"}),
        ("prompts", {"question": "1+1?", "instruction": "Answer."}),
        ("preferences", {"prompt": "1+1?", "chosen": "2", "rejected": "3"}),
        ("preferences", {"chosen": [user("1+1?"), assistant("2")], "rejected": [user("1+1?"), assistant("3")]}),
        # Another method's columns.
        ("prompts", {"prompt": "1+1?", "completion": [assistant("2")], "conversations": [turn("human", "no")]}),
        ("preferences", {"prompt": "1+1?", "chosen": "Human: no", "rejected": "3"}),
        ("steps", {"prompt": "a", "steps": ["b", "c"], "labels": [True, False]}),
    ],
)
def test_rows_that_are_ours_or_doubtful_stay_as_they_are(reads: Reads, row: Mapping[str, Any]) -> None:
    rows = read_rows([row])
    assert recognised(rows, reads) is rows


def test_what_was_recognised_is_said() -> None:
    rows = recognised(read_rows([{"instruction": "Add.", "input": "1", "output": "2"}]), "demonstrations")
    assert rows.notes == ("`instruction` and `input` are read as the prompt", "`output` is read as `completion`")


@pytest.mark.parametrize(
    ("reads", "rows", "message"),
    [
        ("demonstrations", [{"conversations": [turn("humn", "a")]}], "turn 1: `from` is 'humn'.* mean `human`"),
        (
            "demonstrations",
            [{"conversations": [turn("human", "a")]}, {"conversations": [turn("human", "a"), turn("gpt", None)]}],  # type: ignore[arg-type]
            "row 2: column `conversations`, turn 2: `value` must be a text, not NoneType",
        ),
        (
            "demonstrations",
            [{"conversations": [turn("human", "a"), turn("gpt", "b", weight=0)]}],
            "turn 2: `weight` is 0, but every turn of the assistant is trained on",
        ),
        (
            "demonstrations",
            [{"conversations": [turn("function_call", "rain()")]}],
            "turn 1: a function_call must be",
        ),
        (
            "demonstrations",
            [{"conversations": [turn("human", "a")]}, {"conversations": [user("a")]}],
            'row 2: .*, turn 1 must be an object like {"from"',
        ),
        (
            "demonstrations",
            [{"question": "a", "answer": "b"}, {"answer": "b"}],
            "row 2: column `question` must be",
        ),
        ("demonstrations", [{"instruction": "a", "output": "b", "history": ["a"]}], "row 1: column `history` must be"),
        ("preferences", [{"prompt": "a", "completion": "b", "label": True}], "`label` marks single completions.*KTO"),
        (
            "preferences",
            [{"chosen": f"{HH}a", "rejected": f"{HH}b"}, {"chosen": f"{HH}a", "rejected": "b"}],
            "row 2: column `rejected` must be a text that begins with 'Human:'",
        ),
        (
            "demonstrations",
            [{"messages": {"role": ["user", "assistant"], "content": ["1+1?"]}}],
            "row 1: column `messages` must hold lists of one length",
        ),
        (
            "preferences",
            [{"prompt": [user("a")], "chosen": "b", "rejected": "c"}, {"prompt": [user("a")], "chosen": ["b"]}],
            "row 2: column `chosen` must be a text, as in other rows, not list",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named(reads: Reads, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        recognised(read_rows(rows), reads)


def test_completions_marked_as_bad_and_systems_left_out_are_pointed_out() -> None:
    labelled = [{"prompt": "a", "completion": "b", "label": good} for good in (True, False, False)]
    (note,) = recognised(read_rows(labelled), "demonstrations").notes
    assert "`label` is false in 2 of 3 rows" in note
    (note,) = recognised(read_rows([{"prompt": "a", "system": "Be brief."}]), "prompts").notes
    assert "`system` is no part of the prompt" in note


def test_a_system_column_beside_a_system_turn_is_left_out_with_a_note() -> None:
    turns = [turn("human", "1+1?"), turn("gpt", "2")]
    both = {"system": "Be brief.", "conversations": [turn("system", "Be kind."), *turns]}
    alike = {"system": "Be kind.", "conversations": [turn("system", "Be kind."), *turns]}
    one = {"system": "Be brief.", "conversations": turns}
    rows = recognised(read_rows([one, both, alike, both]), "demonstrations")
    assert [row["messages"][0] for row in rows] == [system("Be brief."), *[system("Be kind.")] * 3]
    assert rows.notes[-1] == (
        "`system` is left out in 2 of 4 rows, whose conversations begin with another system message"
    )
    assert not any("left out" in note for note in recognised(read_rows([one, alike]), "demonstrations").notes)


VERL = {"prompt": [user("1+1?")], "reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {"index": 0}}


def test_a_dotted_name_reaches_into_an_object() -> None:
    rows = renamed(read_rows([VERL, VERL]), {"answer": "reward_model.ground_truth", "id": "extra_info.index"})
    assert rows.columns == ("prompt", "reward_model", "extra_info", "answer", "id")
    assert list(rows) == [{**VERL, "answer": "2", "id": 0}] * 2
    deeper = renamed(read_rows([{"a": {"b": {"c.d": 1}}}]), {"e": "a.b.c.d"})
    assert list(deeper) == [{"a": {"b": {"c.d": 1}}, "e": 1}]


def test_a_column_of_that_very_name_wins_over_a_path() -> None:
    rows = renamed(read_rows([{"a.b": 1, "a": {"b": 2}}]), {"c": "a.b"})
    assert list(rows) == [{"c": 1, "a": {"b": 2}}]


def test_a_path_reads_a_column_that_is_renamed_too() -> None:
    rows = renamed(read_rows([{"answer": {"text": "2"}}]), {"answer": "answer.text", "whole": "answer"})
    assert list(rows) == [{"whole": {"text": "2"}, "answer": "2"}]


def test_a_row_without_what_a_path_names_is_an_error() -> None:
    other = {**VERL, "reward_model": {"style": "rule"}}
    with pytest.raises(DataError, match=r"row 2: no `reward_model\.ground_truth`, which .* reads as `answer`"):
        renamed(read_rows([VERL, other]), {"answer": "reward_model.ground_truth"})
    with pytest.raises(DataError, match=r"row 2: no `reward_model\.ground_truth`"):
        renamed(read_rows([VERL, {**VERL, "reward_model": "rule"}]), {"answer": "reward_model.ground_truth"})
    # Arrow gives every object the keys of all others.
    empty = {**VERL, "reward_model": {"style": "rule", "ground_truth": None}}
    assert [row["answer"] for row in renamed(read_rows([VERL, empty]), {"answer": "reward_model.ground_truth"})] == [
        "2",
        None,
    ]


def test_columns_get_the_names_that_a_recipe_gives_them() -> None:
    rows = read_rows([{"question": "a", "solution": "1", "id": 7}, {"question": "b", "id": 8}])
    found = renamed(rows, {"prompt": "question", "answer": "solution"})
    assert list(found) == [{"prompt": "a", "answer": "1", "id": 7}, {"prompt": "b", "id": 8}]
    assert found.columns == ("prompt", "answer", "id")
    swapped = renamed(read_rows([{"prompt": "a", "question": "b"}]), {"prompt": "question", "title": "prompt"})
    assert list(swapped) == [{"title": "a", "prompt": "b"}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "qestion"}, "no column `qestion`, which `data.columns` reads as `prompt`.*mean `question`"),
        ({"answer": "question"}, "reads `question` as `answer`, but there is a column `answer` too"),
        ({"gold": "meta.gold"}, "no column `meta.gold`.*it has `question`, `answer`, `meta`.*mean `meta.goal`"),
        ({"gold": "goal"}, "no column `goal`, which `data.columns` reads as `gold`.*Did you mean `meta.goal`"),
        ({"answer": "meta.goal"}, "reads `meta.goal` as `answer`, but there is a column `answer` too"),
    ],
)
def test_columns_that_do_not_exist_or_are_taken_are_refused(columns: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        renamed(read_rows([{"question": "a", "answer": 1, "meta": {"goal": 2}}]), columns)


def test_a_sequence_of_objects_that_datasets_stores_is_a_conversation(tmp_path: Any) -> None:
    messages = {"role": ["user", "assistant"], "content": ["1+1?", "2"]}
    features = {"messages": {key: datasets.Sequence(datasets.Value("string")) for key in messages}}
    stored = datasets.Dataset.from_list([{"messages": messages}], features=datasets.Features(features))
    stored.to_parquet(tmp_path / "a.parquet")
    for source in (stored, tmp_path / "a.parquet"):
        assert user_rows(source, {}, "demonstrations")[0]["messages"] == [user("1+1?"), assistant("2")]


def test_what_a_question_is_about_is_not_lost_without_a_word() -> None:
    rows = [{"question": "Who?", "context": "Ann reads.", "answer": "Ann"}]
    assert recognised(read_rows(rows), "demonstrations").notes[0] == (
        "`question` is read as the prompt, `context` is not: if it belongs there, write both into a column `prompt`"
    )
    assert recognised(read_rows([{**rows[0], "context": " "}]), "prompts").notes == (
        "`question` is read as the prompt",
    )
