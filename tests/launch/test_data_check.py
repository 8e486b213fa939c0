"""The check of a recipe's data: counts that a person can work out, and every row that a run would refuse."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sharpen.data import large
from sharpen.launch import data_check
from sharpen.launch.data_check import check_data
from sharpen.launch.data_report import CheckedRows, TokenCounts
from sharpen.launch.spans import Span
from tiny_runs import tiny_recipe, tiny_start_model

QUIET = {"evaluation": {"every": 0}, "checkpoint": {"best": None}}
OWN = {"name": "exact_answer", "column": "answer"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("data_check") / "model")


def checked(
    tmp_path: Path, model: Path, method: str, rows: list[dict[str, Any]], show: int = 3, **data: Any
) -> CheckedRows:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = {"reward": OWN} if method == "grpo" else {}
    settings = {"data": {"task": None, "train": str(file), **data}, **reward, **QUIET}
    recipe = tiny_recipe(tmp_path / "run", model, method, **settings)
    (part,) = check_data(recipe, show=show).parts
    assert not (tmp_path / "run").exists()
    return part


def test_demonstrations_are_shown_and_counted_as_they_are_trained(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "1+1=", "completion": "2"}, {"prompt": "10+10=", "completion": "20"}]
    part = checked(tmp_path, model, "sft", rows, show=1)
    assert part.prompts == TokenCounts(2, 4, 5, 6, 6, 10)
    assert part.completions == part.trained == TokenCounts(2, 2, 2.5, 3, 3, 5)  # each with its end
    (row,) = part.shown
    assert row.where.endswith("rows.jsonl:1")
    ((grade, (sample,)),) = row.completions
    assert (grade, list(sample.prefix), sample.trained) == (None, [Span("1+1=", False, False)], 2)
    answer, end = sample.completion
    assert (answer, end.trained, end.special) == (Span("2", True, False), True, True)
    assert (part.errors, part.doubts, part.split, part.dropped) == ((), (), 0, 0)


def test_every_row_that_a_run_would_refuse_is_named_and_the_others_are_counted(tmp_path: Path, model: Path) -> None:
    rows = [
        {"prompt": "1+1=", "completion": "2"},
        {"prompt": "1+2=", "completion": ""},
        {"prompt": "1+3=", "completion": 4},
        {"prompt": "+" * 32, "completion": "2"},
        {"prompt": "1+4=", "completion": "5"},
    ]
    part = checked(tmp_path, model, "sft", rows)
    assert [error.split("rows.jsonl:")[1][:2].rstrip(": ") for error in part.errors] == ["2", "3", "4"]
    assert "is empty" in part.errors[0]
    assert "must be a string, not int" in part.errors[1]
    assert "context of 32 tokens" in part.errors[2]
    assert (part.rows, part.unread, part.prompts) == (5, 3, TokenCounts(2, 4, 4, 4, 4, 8))


def test_rows_left_out_are_counted(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "+" * 32, "completion": "2"}, {"prompt": "1+1=", "completion": "2"}]
    part = checked(tmp_path, model, "sft", rows, overlong="drop")
    assert (part.dropped, part.errors) == (1, ())


def test_rows_left_out_are_no_errors_beside_one_that_is(tmp_path: Path, model: Path) -> None:
    rows = [
        {"prompt": "1+1=", "completion": "2"},
        {"prompt": "+" * 32, "completion": "2"},
        {"prompt": "1+2=", "completion": ""},
    ]
    part = checked(tmp_path, model, "sft", rows, overlong="drop")
    assert (part.dropped, part.unread) == (1, 1)
    assert [error.split("rows.jsonl:")[1][0] for error in part.errors] == ["3"]


def test_a_row_of_another_kind_than_the_first_is_an_error(tmp_path: Path, model: Path) -> None:
    chat = tmp_path / "chat"
    shutil.copytree(model, chat)
    (chat / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}={{ '\n' if m.role == 'user' else '' }}{% endfor %}"
    )
    said = [[{"role": role, "content": text}] for role, text in (("user", "1+1"), ("assistant", "2"))]
    rows = [{"prompt": "1+1=", "completion": "2"}, dict(zip(("prompt", "completion"), said, strict=True))]
    part = checked(tmp_path, chat, "sft", rows)
    assert (part.dropped, part.unread, part.prompts and part.prompts.count) == (0, 1, 1)
    assert "rows.jsonl:2" in part.errors[0]


def test_the_longer_of_two_completions_and_a_repeated_row_look_wrong(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": f"{a}+{b}=", "chosen": "1+1", "rejected": "2"} for a in range(5) for b in range(5)]
    part = checked(tmp_path, model, "dpo", [*rows, rows[3]])
    assert list(part.doubts) == [
        "1 of 26 rows repeat an earlier one; the first is " + str(tmp_path / "rows.jsonl") + ":26",
        "the better completion is the longer one in 26 of 26 rows: length could be what is learned",
    ]
    assert [grade for grade, _ in part.shown[0].completions] == [1.0, 0.0]


def test_pairs_whose_scores_say_the_opposite_look_wrong(tmp_path: Path, model: Path) -> None:
    scores = [(2.0, 1.0), (1.0, 3.0), (2.0, 2.0), (0.5, 4), (None, 1.0)]
    rows = [
        {"prompt": f"{a}+1=", "chosen": "2", "rejected": "3", "score_chosen": good, "score_rejected": bad}
        for a, (good, bad) in enumerate(scores)
    ]
    assert list(checked(tmp_path, model, "dpo", rows).doubts) == [
        "2 of 5 rows have a lower `score_chosen` than `score_rejected`; the first is "
        + str(tmp_path / "rows.jsonl")
        + ":2"
    ]


def test_prompts_are_measured_with_room_for_what_is_drawn(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "+" * 25, "answer": "2"}]
    part = checked(tmp_path, model, "grpo", rows)
    assert len(part.errors) == 1
    assert "its prompt has 25 tokens and max_new_tokens is 8" in part.errors[0]
    assert part.completions is None


def test_held_out_prompts_that_are_trained_on_look_wrong(tmp_path: Path, model: Path) -> None:
    for name, prompts in (("train", ["1+1=", "1+2="]), ("held_out", ["1+3=", "1+2="])):
        rows = [{"prompt": prompt, "answer": "2"} for prompt in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train": str(tmp_path / "train.jsonl"), "held_out": str(tmp_path / "held_out.jsonl")}
    recipe = tiny_recipe(tmp_path / "run", model, "grpo", data={"task": None, **files}, reward=OWN)
    train, held_out = check_data(recipe).parts
    assert (train.use, train.doubts, held_out.use) == ("trained on", (), "held out")
    assert list(held_out.doubts) == [f"1 of 2 held-out prompts are also trained on; the first is {files['held_out']}:2"]


def test_a_row_that_the_reward_cannot_score_is_one_of_the_errors(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": f"1+{i}=", "answer": answer} for i, answer in enumerate(["1", None, "3", " "])]
    part = checked(tmp_path, model, "grpo", rows)
    assert [error.split("rows.jsonl:")[1][0] for error in part.errors] == ["2", "4"]
    assert (part.rows, part.unread) == (4, 2)
    assert part.prompts == TokenCounts(2, 4, 4, 4, 4, 8)


def test_a_token_without_an_embedding_is_an_error_as_in_the_run(tmp_path: Path, model: Path) -> None:
    smaller = shutil.copytree(model, tmp_path / "smaller")
    config = json.loads((smaller / "config.json").read_text())
    last = AutoTokenizer.from_pretrained(model)("=")["input_ids"][0]
    (smaller / "config.json").write_text(json.dumps({**config, "vocab_size": last}))
    part = checked(
        tmp_path, smaller, "sft", [{"prompt": "1+1=", "completion": "2"}, {"prompt": "1+1", "completion": "2"}]
    )
    assert len(part.errors) == 1
    assert f"rows.jsonl:1: the token '=' has the id {last}" in part.errors[0]


def test_equal_errors_are_said_once(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "1+1=", "completion": ""}] * 25 + [{"prompt": "1+1=", "completion": 3}]
    part = checked(tmp_path, model, "sft", rows)
    assert part.unread == 26
    assert len(part.errors) == 2
    assert part.errors[0].endswith("; 24 more rows are like it")
    assert "rows.jsonl:26" in part.errors[1]


def test_a_prompt_that_opens_the_tag_which_the_reward_expects_looks_wrong(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "tags.jsonl"
    file.write_text(json.dumps({"prompt": "1+1=<think>\n"}) + "\n")
    for prefilled, doubts in ((False, 1), (True, 0)):
        reward = {"name": "tags", "prefilled": prefilled}
        data = {"task": None, "train": str(file), "overlong": "drop"}
        recipe = tiny_recipe(tmp_path / "run", model, "grpo", data=data, reward=reward, **QUIET)
        (part,) = check_data(recipe).parts
        found = [doubt for doubt in part.doubts if "the prompt ends with <think>" in doubt]
        assert len(found) == doubts
        assert all("set `prefilled: true`" in doubt for doubt in found)


def test_very_many_rows_are_checked_in_parts(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are at once: lengths, rows that are refused or left out, repeated rows and what is shown."""
    rows = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(50)]
    rows[13], rows[44] = rows[2], rows[30]
    rows[17] = rows[35] = {"prompt": "1+1=", "completion": ""}
    rows[21] = {"prompt": [{"role": "user", "content": "1"}], "completion": "2"}
    rows[29] = {"prompt": "+" * 40, "completion": "2"}
    at_once = checked(tmp_path, model, "sft", rows, show=9, overlong="drop")
    monkeypatch.setattr(large, "EAGER_ROWS", 10)
    monkeypatch.setattr(data_check, "READ_AT_ONCE", 7)
    assert checked(tmp_path, model, "sft", rows, show=9, overlong="drop") == at_once
    assert (at_once.dropped, at_once.unread, at_once.prompts and at_once.prompts.count) == (1, 3, 46)
    assert at_once.errors[0].endswith("1 more rows are like it")
    assert "2 of 46 rows repeat an earlier one; the first is " + str(tmp_path / "rows.jsonl") + ":14" in at_once.doubts
    rows = [{"prompt": "+" * 40, "completion": "2"}] * 30
    many = checked(tmp_path, model, "sft", rows, overlong="drop")
    assert (many.dropped, many.errors) == (30, (f"{tmp_path}/rows.jsonl: none of the 30 rows fits into 32 tokens",))
