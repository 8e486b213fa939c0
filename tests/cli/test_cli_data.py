"""``sharpen data check``, as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sharpen.cli.app import app
from tiny_runs import tiny_start_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_start_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(folder: Path, rows: list[dict[str, str]], *arguments: str) -> Result:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"run": "runs/r", "model": "model", "method": "sft", "data": {"train": "rows.jsonl"}}
    (folder / "recipe.yaml").write_text(json.dumps({**recipe, "rollout": {"max_new_tokens": 8}}))
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["data", "check", "recipe.yaml", *arguments])


def test_rows_are_shown_with_what_is_trained_on_and_nothing_is_written(folder: Path) -> None:
    result = call(folder, [{"prompt": "1+1=", "completion": "2"}])
    assert result.exit_code == 0, result.output
    assert "rows.jsonl:1\n1+1=⟦2" in result.stdout
    assert "trained on    1       2        2      2      2        2" in result.stdout
    assert "Every row can be read." in result.stdout
    assert not (folder / "runs").exists()


def test_a_row_that_a_run_would_refuse_ends_with_1(folder: Path) -> None:
    result = call(folder, [{"prompt": "1+1=", "completion": "2"}, {"prompt": "1+1=", "completion": ""}], "--show", "0")
    assert result.exit_code == 1
    assert "error: rows.jsonl:2: " in result.stdout
    assert "⟦2" not in result.stdout


def test_the_form_of_the_rows_is_said(folder: Path) -> None:
    result = call(folder, [{"question": "1+1=", "answer": "2"}])
    assert result.exit_code == 0
    assert "1+1=⟦2" in result.stdout
    assert "`question`" in result.stdout.split("rows.jsonl:1")[0]


def test_an_error_of_the_whole_file_is_said_once(folder: Path) -> None:
    result = call(folder, [{"sum": "1+1=", "completion": "2"}] * 3)
    assert result.exit_code == 1
    assert result.stdout.count("no column `prompt`") == 1
    assert "3 of 3 rows cannot be read" in result.stdout


def test_what_cannot_be_checked_ends_with_2(folder: Path) -> None:
    result = call(folder, [{"prompt": "1+1=", "completion": "2"}], "data.train=none.jsonl")
    assert result.exit_code == 2
