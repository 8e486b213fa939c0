"""A draft as YAML: what it says is what was set, and its comments stand where they belong."""

from typing import Any

import pytest
import yaml

from sharpen.recipe.schema import Recipe
from sharpen.scaffold.check import parsed
from sharpen.scaffold.draft import Draft
from sharpen.scaffold.write import to_yaml


def draft_with(system: str) -> Draft:
    draft = Draft()
    for name, value in {
        "run": "runs/a",
        "model.path": "m",
        "method": "sft",
        "data.train": "a.jsonl",
        "data.chat": True,
        "data.system": system,
    }.items():
        draft.set(name, value, "why")
    return draft


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{}",
        "${run}",
        "yes",
        "12",
        "null",
        "a: b",
        " # c",
        "two\n\nlines\n",
        "'\"",
        "größer",
        "[x",
        "1e3",
        "~",
        "%",
    ],
)
def test_any_text_comes_back(text: str) -> None:
    recipe: Recipe = parsed(to_yaml(draft_with(text)), "here")
    assert recipe.data.system == text
    assert str(recipe.run) == "runs/a"


@pytest.mark.parametrize("value", [2e-5, 5e-07, 1e-4, 0.1, 3, True, None, [1, 4], {"a": [1]}, ""])
def test_any_value_comes_back(value: Any) -> None:
    draft = Draft()
    draft.set("a.b.c", value)
    assert yaml.safe_load(to_yaml(draft)) == {"a": {"b": {"c": value}}}


def test_comments_stand_before_or_behind_their_setting() -> None:
    draft = Draft(header=("head", ""))
    draft.set("run", "runs/a", "where")
    draft.doubt("may be " + "long " * 20 + "indeed", inside="model")
    draft.set("model.path", "m")
    draft.set("model.lora.rank", 16, "enough")
    draft.note("one\n  two", inside="data", verbatim=True)
    draft.set("data.train", "x" * 120, "all rows")
    assert to_yaml(draft) == (
        "# head\n"
        "#\n"
        "run: runs/a                        # where\n"
        "model:\n"
        f"  # unsure: may be {'long ' * 16}long\n".replace("long long\n", "long\n")
        + f"  # {'long ' * 4}indeed\n"
        "  path: m\n"
        "  lora:\n"
        "    rank: 16                       # enough\n"
        "data:\n"
        "  # one\n"
        "  #   two\n"
        "  # all rows\n"
        f"  train: {'x' * 120}\n"
    )
    assert draft.unsure == ["may be " + "long " * 20 + "indeed"]
    assert draft.value("model.lora.rank") == 16
