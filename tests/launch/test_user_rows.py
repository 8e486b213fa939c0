"""Rows of the user's own as a run reads them: `data.columns`, and forms that are recognised."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import DataError
from sharpen.launch.inputs import Inputs, read_inputs
from sharpen.launch.source_rows import SourceRows
from sharpen.recipe.loading import make_recipe


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def inputs_of(method: str, data: Mapping[str, Any], **changes: Any) -> Inputs:
    return read_inputs(make_recipe({"run": "r", "model": {"path": "m"}, "method": method, "data": data, **changes}))


def rows_of(parts: Sequence[SourceRows]) -> list[list[dict[str, Any]]]:
    return [list(part.rows) for part in parts]


def test_columns_hold_for_the_rows_to_train_on_and_to_measure_on(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"task": "1+1", "key": "2"}])
    held_out = write(tmp_path / "held_out.jsonl", [{"task": "1+2", "key": "3"}])
    data = {"train": train, "held_out": held_out, "columns": {"prompt": "task", "answer": "key"}}
    found = inputs_of("grpo", data, reward="exact_answer", evaluation={"every": 1})
    assert found.held_out is not None
    assert rows_of(found.train) == [[{"prompt": "1+1", "answer": "2"}]]
    assert rows_of(found.held_out.parts) == [[{"prompt": "1+2", "answer": "3"}]]
    write(tmp_path / "held_out.jsonl", [{"prompt": "1+2", "answer": "3"}])
    with pytest.raises(DataError, match=rf"^{held_out}: no column `task`, which `data.columns` reads as `prompt`"):
        inputs_of("grpo", data, reward="exact_answer", evaluation={"every": 1})


def test_a_source_has_columns_of_its_own_and_shares_those_of_all(tmp_path: Path) -> None:
    sources = {
        "one": {"train": write(tmp_path / "one.jsonl", [{"ask": "a", "answer": "1"}]), "columns": {"prompt": "ask"}},
        "two": {"train": write(tmp_path / "two.jsonl", [{"task": "b", "answer": "2"}])},
        "sums": {"task": "sums"},
    }
    found = inputs_of("grpo", {"columns": {"prompt": "task"}, "sources": sources}, reward="exact_answer")
    assert rows_of(found.train[:2]) == [[{"prompt": "a", "answer": "1"}], [{"prompt": "b", "answer": "2"}]]


def test_what_was_recognised_is_said_in_one_line_for_each_file(tmp_path: Path) -> None:
    file = write(tmp_path / "alpaca.jsonl", [{"instruction": "Add.", "input": "1, 1", "output": "2"}])
    said = "`instruction` and `input` are read as the prompt"
    sft = inputs_of("sft", {"train": file, "held_out": file}, evaluation={"every": 1})
    assert sft.notes == (f"{file}: {said}; `output` is read as `completion`",)
    # A reward makes it answers that are measured, of which the prompt is read alone.
    scored = inputs_of(
        "sft",
        {"train": file, "held_out": file},
        evaluation={"every": 1},
        reward={"name": "exact_answer", "column": "output"},
    )
    assert scored.notes == (f"{file}: {said}; `output` is read as `completion`", f"{file}: {said}")
