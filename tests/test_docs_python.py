"""The page on Python: its blocks run, and what it names is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import sharpen

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_blocks_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert sharpen.Run.open("runs/digits").finished
    # The reward of an untrained model is far below 0.9, so the run goes on; None of its steps is lost.
    assert len(sharpen.Run.open("runs/watched").metrics) == 3


def test_every_name_of_the_page_is_there() -> None:
    named = set(re.findall(r"\bsharpen\.(\w+)", PAGE.read_text())) - {"models"}
    assert named
    assert named <= set(sharpen.__all__)


def test_the_page_has_every_argument_of_train() -> None:
    table = {
        name
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
        for name in re.findall("`(.+?)`", line.split("|")[1])
    }
    assert table == set(inspect.signature(sharpen.train).parameters)
