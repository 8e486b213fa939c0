"""Files of very many rows: each is checked once, and read again when it is needed, as if the file were small."""

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharpen.data import large, text_file
from sharpen.data.formats import user_rows
from sharpen.data.json_text import MOST_NESTED
from sharpen.data.rows import Rows, read_rows
from sharpen.errors import DataError
from sharpen.types import Reads

TEXTS = ["1+1=", "é, ü", 'a "quoted" one', "two\nlines", "", "x" * 3000, " 😀 ", "a\r\nb"]


@pytest.fixture(params=[7, 1 << 20])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Four rows are many, and files are read in pieces of a few bytes, or at once."""
    with monkeypatch.context() as patched:
        patched.setattr(large, "EAGER_ROWS", 4)
        patched.setattr(text_file, "PIECE_BYTES", request.param)
        yield patched


def read_both(source: Any, many: pytest.MonkeyPatch) -> tuple[Rows, Rows]:
    """The rows where four are many, and where they are few."""
    lazy = read_rows(source)
    with many.context() as patched:
        patched.setattr(large, "EAGER_ROWS", 20_000)
        return lazy, read_rows(source)


def assert_same(lazy: Rows, eager: Rows) -> None:
    assert type(lazy.data) is not list
    assert (len(lazy), lazy.columns, lazy.name, lazy.key) == (len(eager), eager.columns, eager.name, eager.key)
    assert list(lazy) == list(eager) == [lazy[i] for i in range(len(eager))]
    for name in ("where", "row_id"):
        assert [getattr(lazy, name)(i) for i in range(len(lazy))] == [
            getattr(eager, name)(i) for i in range(len(eager))
        ]
    assert [lazy.number_of(lazy.row_id(i)) for i in range(len(lazy))] == list(range(len(lazy)))


def shuffled(rows: int) -> list[dict[str, Any]]:
    drawn = random.Random(3)
    return [{"prompt": drawn.choice(TEXTS), "n": str(i), **({"late": "1"} if i > 6 else {})} for i in range(rows)]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "\n\n \n"])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_of_json(tmp_path: Path, many: pytest.MonkeyPatch, ends: str, packed: bool) -> None:
    text = ends.join(json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(shuffled(30)))
    file = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    lazy, eager = read_both(file, many)
    assert list(eager) == shuffled(30)
    assert lazy.columns == ("prompt", "n", "late")
    assert_same(lazy, eager)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("before", ["", "sep=,\r\n"])
def test_tables(tmp_path: Path, many: pytest.MonkeyPatch, encoding: str, before: str) -> None:
    quoted = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    lines = [f"{quoted[i % len(quoted)]},{i}" for i in range(30)]
    (tmp_path / "a.csv").write_bytes((before + "prompt,n\r\n" + "\r\n\r\n".join(lines) + "\r\n").encode(encoding))
    lazy, eager = read_both(tmp_path / "a.csv", many)
    assert list(eager) == [{"prompt": TEXTS[i % len(TEXTS)], "n": str(i)} for i in range(30)]
    assert_same(lazy, eager)


def test_parquet(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pylist(shuffled(30)), tmp_path / "a.parquet")
    lazy, eager = read_both(tmp_path / "a.parquet", many)
    assert_same(lazy, eager)
    assert lazy[0].keys() == {"prompt", "n"}  # the columns that Arrow takes from the first row


@pytest.mark.parametrize(
    ("row", "columns", "reads"),
    [
        ({"question": "1+1?", "answer": "2"}, {}, "demonstrations"),
        ({"q": "1+1?", "a": {"b": "2"}}, {"prompt": "q", "completion": "a.b"}, "demonstrations"),
        ({"conversations": [{"from": "human", "value": "1?"}, {"from": "gpt", "value": "2"}]}, {}, "demonstrations"),
        ({"system": "Be.", "instruction": "Add.", "input": "1", "output": "2"}, {}, "demonstrations"),
        ({"prompt": [{"role": "user", "content": "1?"}], "chosen": "2", "rejected": "3"}, {}, "preferences"),
        ({"chosen": "\n\nHuman: 1?\n\nAssistant: 2", "rejected": "\n\nHuman: 1?\n\nAssistant: 3"}, {}, "preferences"),
    ],
)
def test_known_forms(
    tmp_path: Path, many: pytest.MonkeyPatch, row: dict[str, Any], columns: dict[str, str], reads: Reads
) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n" * 9)
    lazy = user_rows(tmp_path / "a.jsonl", columns, reads)
    many.setattr(large, "EAGER_ROWS", 20_000)
    eager = user_rows(tmp_path / "a.jsonl", columns, reads)
    assert_same(lazy, eager)
    assert lazy.notes == eager.notes


def test_lists_in_a_table(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("prompt,labels\n" + '1,"[true, false]"\n' * 9)
    rows = user_rows(tmp_path / "a.csv", {}, "steps")
    assert list(rows) == [{"prompt": "1", "labels": [True, False]}] * 9
    (tmp_path / "a.csv").write_text("prompt,labels\n" + '1,"[true, false]"\n' * 9 + "1,yes\n")
    with pytest.raises(DataError, match=r"a\.csv:11: column `labels` must be a list written as JSON, not 'yes'"):
        list(user_rows(tmp_path / "a.csv", {}, "steps"))


def test_a_part_keeps_names_ids_and_what_the_first_row_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}\n{"a": 3}\n')
    part = read_rows(tmp_path / "a.jsonl").part([2, 1])
    assert (list(part), part.row_id(0), part.where(0)) == ([{"a": 3}, {"a": 2}], "a.jsonl:3", f"{tmp_path}/a.jsonl:5")
    again = part.part([1])
    assert (again.row_id(0), again.where(0), again.example) == ("a.jsonl:2", f"{tmp_path}/a.jsonl:4", {"a": 1})


def test_what_is_wrong_in_the_last_row_is_found_at_the_start(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    for bad, said in (
        ("[1]", "must be an object of columns, not list"),
        ('{"a": ', "not JSON: Expecting value at character 7"),
        ('{"a": 1, "a": 2}', "an object has the name 'a' twice"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        (f'{{"a": {"1" * 5000}}}', "Exceeds the limit (4300 digits)"),
        (f'{{"a": {"[" * 100}{"]" * 100}}}', "nested too deeply: more than 100 within each other"),
        (f'{{"a": {"[" * 100_000}', "nested too deeply"),
    ):
        (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 9 + bad)
        with pytest.raises(DataError, match=rf"a\.jsonl:10: .*{re.escape(said)}"):
            read_rows(tmp_path / "a.jsonl")


def test_a_file_that_changes_while_it_is_used_is_an_error(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n' * 9)
    rows = read_rows(file)
    assert rows[8] == {"a": 1}
    with file.open("r+") as changed:
        changed.write('{"a": 2}\n')
    os.utime(file, ns=(1, 1))
    with pytest.raises(DataError, match=r"a\.jsonl: has changed while it was being used"):
        rows[8]
    # One that is replaced is still there.
    rows = read_rows(file)
    (tmp_path / "b.jsonl").write_text("{}")
    (tmp_path / "b.jsonl").replace(file)
    assert [row["a"] for row in rows] == [2] + [1] * 8


# What JSON and Parquet may hold


def nested(depth: int) -> str:
    """A row of this depth."""
    return f'{{"a": {"[" * (depth - 1)}{"]" * (depth - 1)}}}'


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_the_deepest_row(tmp_path: Path, name: str) -> None:
    around = "{}" if name == "a.jsonl" else "[{}]"
    (tmp_path / name).write_text(around.format(nested(MOST_NESTED)))
    assert len(read_rows(tmp_path / name)) == 1
    for depth in (MOST_NESTED + 1, 400, 990):
        (tmp_path / name).write_text(around.format(nested(depth)))
        with pytest.raises(DataError, match=r"a\.jsonl?(:1|, row 1): lists or objects are nested too deeply"):
            read_rows(tmp_path / name)


def test_a_list_in_python_that_is_nested_too_deeply() -> None:
    row: dict[str, Any] = {"a": []}
    for _ in range(5000):
        row = {"a": row}
    with pytest.raises(DataError, match="rows given as a list, row 2: lists or objects are nested too deeply"):
        read_rows([{"a": 1}, row])


def test_json_in_a_cell_of_a_table(tmp_path: Path) -> None:
    for cell, said in ((f"[{'1' * 5000}]", "must be a list"), ("[" * 400 + "]" * 400, "must be a list")):
        (tmp_path / "a.csv").write_text(f"prompt,labels\n1,{cell}\n")
        with pytest.raises(DataError, match=rf"a\.csv:2: column `labels` {said}"):
            user_rows(tmp_path / "a.csv", {}, "steps")


def test_objects_in_parquet_with_a_name_twice(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["b", "b"])
    pq.write_table(pa.table({"a": ["x"], "s": pa.array([[{}]], pa.list_(twice.type))}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"the objects in column `s` have the name 'b' twice"):
        read_rows(tmp_path / "a.parquet")


@pytest.mark.parametrize("checked", [False, True])
def test_damaged_parquet(tmp_path: Path, checked: bool) -> None:
    """Flips and cuts: an error that names the file, or rows that can be read; with checksums, the same rows."""
    file, drawn = tmp_path / "a.parquet", random.Random(0)
    rows = [{"prompt": f"What is {i}? é", "turns": [{"role": "user", "content": "x" * i}]} for i in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), file, compression="none", write_page_checksum=checked)
    whole = file.read_bytes()
    found = {"error": 0, "same": 0, "other": 0, "unnamed": 0}
    for attempt in range(120):
        damaged = bytearray(whole)
        if attempt % 4 == 0:
            del damaged[drawn.randrange(len(damaged)) :]
        else:
            damaged[drawn.randrange(len(damaged))] ^= 1 << drawn.randrange(8)
        file.write_bytes(damaged)
        try:
            found["same" if list(read_rows(file)) == rows else "other"] += 1
        except DataError as error:
            found["error" if str(error).startswith(str(file)) else "unnamed"] += 1
    assert found["error"] > (90 if checked else 50)
    assert (found["unnamed"], checked and found["other"]) == (0, 0)
