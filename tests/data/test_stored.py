"""Data sets of `datasets` with formats and types of its own."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharpen.data.rows import read_rows
from sharpen.errors import DataError

ROW = {"prompt": "a", "labels": [1, 0]}


@pytest.mark.parametrize("format", ["numpy", "torch", "pandas", "arrow", None])
def test_a_format_is_taken_off(format: str | None) -> None:
    rows = read_rows(datasets.Dataset.from_list([ROW]).with_format(format))
    assert (list(rows), rows.columns) == ([ROW], ("prompt", "labels"))
    assert (type(rows[0]["labels"]), type(rows[0]["prompt"])) == (list, str)


@pytest.mark.parametrize("format", ["torch", None])
def test_the_columns_that_a_format_chooses_are_the_rows(format: str | None) -> None:
    rows = read_rows(datasets.Dataset.from_list([ROW]).with_format(format, columns=["prompt"]))
    assert (list(rows), rows.columns) == ([{"prompt": "a"}], ("prompt",))


def test_a_transform_gives_the_rows() -> None:
    def asked(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        return {"prompt": [f"{text}?" for text in batch["text"]]}

    rows = read_rows(datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}]).with_transform(asked))
    assert (list(rows), rows.columns) == ([{"prompt": "a?"}, {"prompt": "b?"}], ("prompt",))


@pytest.mark.parametrize(
    ("feature", "value", "said"),
    [
        (datasets.Image(), {"bytes": b"x", "path": None}, "images"),
        (datasets.List(datasets.Image()), [{"bytes": b"x", "path": None}], "images"),
        ({"part": datasets.Audio()}, {"part": {"bytes": b"x", "path": None}}, "sounds"),
        (datasets.Video(), {"bytes": b"x", "path": None}, "videos"),
    ],
)
def test_what_a_language_model_is_not_shown_is_left_out_and_said(feature: Any, value: Any, said: str) -> None:
    features = datasets.Features({"prompt": datasets.Value("string"), "seen": feature})
    # Bytes that no decoder of these accepts: nothing tries.
    rows = read_rows(datasets.Dataset.from_list([{"prompt": "a", "seen": value}]).cast(features))
    assert (list(rows), rows.columns) == ([{"prompt": "a"}], ("prompt",))
    (note,) = rows.notes
    assert note.startswith(f"`seen` holds {said}:")


def test_numbers_of_classes_are_explained(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["neg", "pos"])
    stored = datasets.Dataset.from_list([{"prompt": "a", "label": 1}]).cast_column("label", label)
    stored.to_parquet(tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert (list(rows), rows.notes) == (
        [{"prompt": "a", "label": 1}],
        ("`label` holds the numbers of classes: 0 is neg, 1 is pos",),
    )


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["1"], ["2"]], names=["prompt", "answer", "answer"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: has 2 columns called `answer`"):
        read_rows(tmp_path / "a.parquet")


def test_a_type_that_datasets_does_not_know_is_named(tmp_path: Path) -> None:
    pairs = pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"prompt": ["a"], "answer": pairs}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column `answer` has the type map<string, int64"):
        read_rows(tmp_path / "a.parquet")
