"""``sharpen reward check``, as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sharpen.cli.app import app

ROWS = [{"prompt": f"{a}·{b}=", "answer": str(a * b), "worked": f"It is {a * b}"} for a in (11, 12) for b in (7, 8, 9)]
REWARDS = """
import time

def sound(completion, answer):
    print("this is not for standard output")
    return float(completion == answer)

def generous(completion, answer):
    return float(completion in ("", answer))

def worked(completion, answer):
    return float(completion == f"It is {answer}")

def slow(completion, answer):
    if not completion:
        time.sleep(1.1)
    if completion == "None":
        raise ValueError("None of that")
    return float(completion == answer)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(folder: Path, reward: Any, **more: Any) -> Path:
    """The model is not there: nothing of it is needed."""
    settings = {"run": "runs/r", "model": "models/none", "method": "grpo", "data": {"train": "rows.jsonl"}}
    (folder / "recipe.yaml").write_text(json.dumps({**settings, "reward": reward, **more}))
    return folder / "recipe.yaml"


def call(*arguments: object) -> Result:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["reward", "check", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_sound_reward_ends_with_0_and_needs_no_model(folder: Path) -> None:
    result = call(recipe(folder, "rewards.py:sound"))
    assert result.exit_code == 0, result.output
    assert "references: 6 of 6 get a full reward (column `answer`)" in result.stdout
    assert "No wrong answer and no cheat was accepted on any row." in result.stdout
    assert "completions per second" in result.stdout
    assert "this is not for standard output" not in result.stdout
    assert not (folder / "runs").exists()


def test_a_cheat_that_passes_ends_with_1_unless_the_recipe_allows_it(folder: Path) -> None:
    result = call(recipe(folder, "rewards.py:generous"))
    assert result.exit_code == 1
    assert "✗ empty passes on 6 of 6 rows: an empty completion" in result.stdout
    assert "rows.jsonl:1: ''" in result.stdout
    allowed = call(recipe(folder, "rewards.py:generous", reward_check={"allow": ["empty"]}))
    assert allowed.exit_code == 0
    assert "allowed" in allowed.stdout


def test_a_column_of_references_can_be_named(folder: Path) -> None:
    path = recipe(folder, "rewards.py:worked")
    result = call(path)
    assert result.exit_code == 1
    assert "6 of 6 references do not get a full reward; the first, rows.jsonl:1: '77' (reward 0)" in result.stdout
    assert call(path, "--reference", "worked").exit_code == 0
    assert call(path, "reward_check.reference=worked").exit_code == 0


def test_slow_completions_and_errors_are_pointed_out(folder: Path) -> None:
    result = call(recipe(folder, "rewards.py:slow"), "reward_check.cheat_rows=1")
    assert result.exit_code == 0
    assert "slow, over 1 s: rows.jsonl:1: ''" in result.stdout
    assert "raised: 1 completions" in result.stdout
    assert "ValueError: None of that" in result.stdout


@pytest.mark.parametrize(
    ("reward", "more", "arguments", "said"),
    [
        ("rewards.py:sound", {"reward_check": {"allow": ["emtpy"]}}, [], "Did you mean `empty`?"),
        ("rewards.py:sound", {"reward_check": {"row": 3}}, [], "Did you mean `reward_check.rows`?"),
        ("rewards.py:sound", {}, ["--reference", "work"], "Did you mean `worked`?"),
        ("rewards.py:sund", {}, [], "Did you mean `sound`?"),
        (None, {"method": "sft", "data": {"train": "rows.jsonl"}}, [], "no reward to check"),
        ({"name": "reward_model", "path": "x/y"}, {"model": "./none"}, [], "none: not a model folder"),
    ],
)
def test_what_cannot_be_checked_ends_with_2(
    folder: Path, reward: Any, more: dict[str, Any], arguments: list[str], said: str
) -> None:
    result = call(recipe(folder, reward, **more), *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_the_commands_are_told_apart() -> None:
    page = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["--help"]).stdout
    assert "│ reward " in page
    assert "│ rewards " in page
    assert "check" in CliRunner().invoke(app, ["reward", "--help"]).stdout


def test_every_sources_reward_is_checked_on_its_rows(folder: Path) -> None:
    (folder / "others.jsonl").write_text((folder / "rows.jsonl").read_text())
    two = {
        "good": {"train": "rows.jsonl", "reward": "rewards.py:sound"},
        "sums": {"task": "arithmetic"},
    }
    sound = call(recipe(folder, None, data={"sources": two}))
    assert sound.exit_code == 0, sound.output
    assert "reward sound on 6 rows of source good, rows.jsonl" in sound.stdout
    assert "reward arithmetic on 100 rows of source sums, arithmetic" in sound.stdout
    two["bad"] = {"train": "others.jsonl", "reward": "rewards.py:generous"}
    result = call(recipe(folder, None, data={"sources": two}))
    assert result.exit_code == 1
    assert result.stdout.count("The reward is sound") == 2
    assert "✗ empty passes on 6 of 6 rows: an empty completion" in result.stdout
    assert "source bad, others.jsonl:1: ''" in result.stdout
