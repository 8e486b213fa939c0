"""Rows that cannot be read or used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from batteries.bad_inputs.case import Case, changed


def data() -> Iterator[Case]:
    def rows(name: str, content: str | bytes, *words: str, file: str = "given.jsonl", **data: Any) -> Case:
        return changed(
            f"data: {name}",
            {"data": {"task": None, "train": file, **data}, "reward": "exact_answer"},
            *words,
            files={file: content},
        )

    missing = {"data": {"task": None, "train": "given.jsonl"}, "reward": "exact_answer"}
    yield changed("data: not there", missing, "given.jsonl: no such file")
    yield rows("empty", "", "given.jsonl")
    yield rows("only line ends", "\n\n\n", "given.jsonl")
    yield rows("no JSON", '{"prompt": "1+1="}\n{"prompt"\n', "given.jsonl:2: not JSON")
    yield rows("a list as a row", "[1]\n", "given.jsonl:1", "must be an object")
    yield rows("a number as a row", "3\n", "given.jsonl:1", "must be an object")
    yield rows("another column", '{"prompts": "1", "answer": "2"}\n', "no column `prompt`")
    yield rows("no answer", '{"prompt": "1+1="}\n', "needs the column 'answer'")
    yield rows("a prompt that is a number", '{"prompt": 3, "answer": "2"}\n', "given.jsonl:1")
    yield rows("a prompt that is null", '{"prompt": null, "answer": "2"}\n', "given.jsonl:1")
    yield rows("an empty prompt", '{"prompt": "", "answer": "2"}\n', "given.jsonl:1")
    yield rows("an answer that is a list", '{"prompt": "1+1=", "answer": ["2"]}\n', "given.jsonl:1", "'answer'")
    yield rows("not UTF-8", b'{"prompt": "\xff", "answer": "2"}\n', "given.jsonl")
    yield rows(
        "too long for the model", json.dumps({"prompt": "1" * 99, "answer": "2"}) + "\n", "given.jsonl:1: does not fit"
    )
    yield rows("a letter that the model does not know", '{"prompt": "é", "answer": "2"}\n', "given.jsonl:1")
    yield rows("a name of another kind", "x", "given.xyz", file="given.xyz")
    yield rows(
        "a column renamed to one that is not there",
        '{"prompt": "1", "answer": "2"}\n',
        "question",
        columns={"prompt": "question"},
    )
    yield rows("a Parquet file that is none", b"PAR1", "given.parquet", file="given.parquet")
    yield rows("an empty CSV", "", "given.csv", file="given.csv")
    yield changed(
        "data: held-out rows that are not there",
        {
            "data": {"task": None, "train": "rows.jsonl", "held_out": "none.jsonl"},
            "reward": "exact_answer",
            "evaluation": {"every": 1},
        },
        "none.jsonl: no such file",
    )
    yield changed("data: a folder without rows", {**missing, "data": {"task": None, "train": "./model"}}, "model")
    yield changed(
        "data: rows without completions for sft",
        {"method": "sft", "data": {"task": None, "train": "rows.jsonl"}},
        "completion",
    )
