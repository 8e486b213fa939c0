"""The tables of docs/data.md say what becomes of a row, and what the errors are."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byte_tokenizer import byte_tokenizer
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.formats import recognised
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.errors import DataError
from sharpen.types import Reads

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
FITS = PAGE.partition("\n## Does my data fit?\n")[2].partition("\n## ")[0]
METHODS: dict[str, Reads] = {"SFT": "demonstrations", "prompts": "prompts", "preferences": "preferences"}
SERVED = re.findall(r"^\| (.*?) \| (\w+) \| `(\{.*?\})` \| `(\{.*\})` \|$", FITS, re.MULTILINE)
REFUSED = re.findall(r"^\| (\w+) \| `(\{.*?\})` \| (.*) \|$", FITS, re.MULTILINE)
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
LOAD: dict[Reads, Callable[[Rows, PromptFormat], Any]] = {
    "demonstrations": load_demonstrations,
    "preferences": load_preferences,
    "prompts": lambda rows, format: load_prompts(rows, format, max_new_tokens=1),
}


def load(row: Any, reads: Reads) -> Rows:
    """The rows as a method reads them, tokenised as a run does."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    rows = recognised(read_rows([row]), reads)
    LOAD[reads](rows, PromptFormat(tokenizer, sys.maxsize))
    return rows


def test_the_page_has_tables() -> None:
    rows = [line for line in FITS.splitlines() if line.startswith("| ") and "`{" in line]
    assert len(SERVED) + len(REFUSED) == len(rows) > 20
    assert {method for _, method, _, _ in SERVED} == METHODS.keys()


@pytest.mark.parametrize(("known", "method", "row", "becomes"), SERVED)
def test_a_row_becomes_what_the_page_says(known: str, method: str, row: str, becomes: str) -> None:
    (found,) = load(json.loads(row), METHODS[method])
    expected = json.loads(becomes)
    assert {name: found[name] for name in expected} == expected
    if any(expected[name] != json.loads(row).get(name) for name in expected):
        assert recognised(read_rows([json.loads(row)]), METHODS[method]).notes or known == "messages and a text"


@pytest.mark.parametrize(("method", "row", "said"), REFUSED)
def test_a_row_that_does_not_fit_is_refused_as_the_page_says(method: str, row: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(json.loads(row), METHODS[method])
    assert said in str(caught.value)
