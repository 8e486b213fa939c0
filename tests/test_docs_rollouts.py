"""The examples of docs/rollouts.md run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

import sharpen
from sharpen.models.character_model import create_character_model

PAGE = (Path(__file__).parents[1] / "docs" / "rollouts.md").read_text()
BLOCKS = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^(?: {4}.*)?\n)+", PAGE, re.M)]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)


def block(beginning: str) -> str:
    (found,) = (block for block in BLOCKS if block.strip().startswith(beginning))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an untrained model, and the page's two files."""
    monkeypatch.chdir(tmp_path)
    create_character_model(
        "models/mine", alphabet="0123456789?+-wrongau", hidden=16, intermediate=24, layers=1, heads=2, context=64
    )
    for name in ("guess", "again"):
        Path(f"{name}.py").write_text(block(f"# {name}.py"))
    return tmp_path


def sampled(run: Path) -> list[dict[str, Any]]:
    rows = [row for file in sorted(run.glob("samples/*.parquet")) for row in pq.read_table(file).to_pylist()]
    return [{**row, "messages": json.loads(row["messages"])} for row in rows]


def test_the_guessing_game_gives_the_hints_that_the_page_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = sharpen.train
    few = {"training": {"steps": 2, "prompts_per_step": 9}, "log": {"samples_every": 1}, "quiet": True}

    def small(*arguments: Any, rollout: dict[str, Any], **settings: Any) -> Any:
        return train(*arguments, rollout={**rollout, "stop": list("0123456789")}, **settings, **few)  # type: ignore[arg-type]

    monkeypatch.setattr(sharpen, "train", small)
    exec(block("import sharpen"), {})
    secrets = dict.fromkeys("123456789", 0)
    hints = 0
    for row in sampled(folder / "runs" / "guess"):
        said = [message["content"] for message in row["messages"]]
        guesses, answers = said[::2], said[1::2]
        assert row["samples"] == 1
        assert row["turns"] == len(guesses) <= 3
        # The prompt does not say the secret; each hint is right for one at least, the same one.
        fitting = [
            secret
            for secret in secrets
            if all((g < secret) == (a == "+") for g, a in zip(guesses, answers, strict=False))
        ]
        assert fitting
        hints += len(answers)
        if row["reward"] == 1:
            assert row["end"] == "done"
            assert guesses[-1] in fitting
    assert hints > 30


@pytest.mark.parametrize("drops", [False, True], ids=["one sample", "several samples"])
def test_a_chat_template_gives_one_sample_or_several(drops: bool, folder: Path) -> None:
    """One function; a template that renders the whole conversation, and one that drops all but the last message."""
    tokenizer = AutoTokenizer.from_pretrained("models/mine")
    tokenizer.chat_template = TEMPLATE.replace("in messages", "in messages[-1:]") if drops else TEMPLATE
    tokenizer.save_pretrained("models/mine")
    run = sharpen.train(
        "models/mine",
        "grpo",
        [{"prompt": "1?", "secret": "3"}, {"prompt": "2?", "secret": "4"}],
        reward=lambda completion, secret: float(completion == secret),
        run="runs/again",
        quiet=True,
        data={"chat": True},
        rollout={"turns": "again.py:again", "max_turns": 2, "max_new_tokens": 30},
        training={"steps": 1, "prompts_per_step": 2},
    )
    rows = sampled(run.path)
    answered = [row for row in rows if row["turns"] == 2]
    assert answered
    for row in answered:
        # A text has no <pad> and <unk>, which an untrained model writes: what it wrote is then tokenised otherwise.
        in_text = sum(len(m["content"]) for m in row["messages"] if m["role"] == "assistant")
        lost = row["tokens"] - in_text - 1 - (row["finish"] == "eos")
        if drops or not lost:
            assert row["samples"] == (2 if drops else 1)
    assert drops or {row["samples"] for row in answered} == {1, 2}
    assert all(row["messages"][1] == {"role": "user", "content": "wrong"} for row in answered)
