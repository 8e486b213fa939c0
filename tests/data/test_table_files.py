"""What stands in a file is what is read, or an error names the line."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.data.formats import user_rows
from sharpen.data.rows import read_rows
from sharpen.errors import DataError
from sharpen.types import Reads


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def table(tmp_path: Path, text: str, name: str = "a.csv", encoding: str = "utf-8") -> list[dict[str, Any]]:
    return list(read_rows(written(tmp_path / name, text, encoding)))


@pytest.mark.parametrize(
    "value", ["12:30", "1180591620717411303424", "007", "true", "2024-01-02", "1e5", "1.50", "NULL", "nan", " a ", "½"]
)
def test_a_value_of_a_table_is_the_text_that_stands_there(tmp_path: Path, value: str) -> None:
    assert table(tmp_path, f"prompt,answer\nWhen?,{value}\n") == [{"prompt": "When?", "answer": value}]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,b\n"x, ""y""",2\n', [{"a": 'x, "y"', "b": "2"}]),
        ('a,b\r\n"one\r\ntwo",\r\n\r\n3,4\r\n', [{"a": "one\r\ntwo", "b": ""}, {"a": "3", "b": "4"}]),
        ("\ufeffa, b \n1, 2\n", [{"a": "1", "b": " 2"}]),
        ("a;b\n1,5;2\n", [{"a": "1,5", "b": "2"}]),
        ("a\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
        ("a,b\n1;2,3\n", [{"a": "1;2", "b": "3"}]),
        ("\ufeffsep=;\r\na;b\r\n1,5;2\r\n", [{"a": "1,5", "b": "2"}]),
        ("sep=;\na, b;c\n1;2\n", [{"a, b": "1", "c": "2"}]),
        ('"sep=|"\na|b\n1,5|2;3\n', [{"a": "1,5", "b": "2;3"}]),
        ("sep=\t\na\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
        ("sep=;,b\n1,2\n", [{"sep=;": "1", "b": "2"}]),
        ("a\n1\n\n2", [{"a": "1"}, {"a": "2"}]),
        (",a\n0,x\n1,y\n", [{"": "0", "a": "x"}, {"": "1", "a": "y"}]),
        (f"a\n{'x' * 200_000}\n", [{"a": "x" * 200_000}]),
    ],
)
def test_tables_as_programs_write_them(tmp_path: Path, text: str, rows: list[dict[str, str]]) -> None:
    assert table(tmp_path, text) == rows


def test_a_folder_of_tables_has_texts_too(tmp_path: Path) -> None:
    text = "prompt,answer,margin\na,007,1.50\nb,NA,\nc,1180591620717411303424,2\n"
    written(tmp_path / "train.csv", text)
    rows = read_rows(f"{tmp_path}?split=train")
    assert list(rows) == table(tmp_path, text, "other.csv")
    assert rows.all_text
    assert (rows[1]["answer"], rows[2]["answer"]) == ("NA", "1180591620717411303424")
    written(tmp_path / "train.csv", "prompt,answer,answer\na,1,2\n")
    with pytest.raises(DataError, match="its header has 2 columns called `answer`"):
        read_rows(f"{tmp_path}?split=train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "text"), [("a.tsv", "prompt\tanswer\né\t1, 2"), ("a.jsonl", '{"prompt": "é"}')])
def test_a_mark_says_in_which_encoding_a_file_is(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    [row] = table(tmp_path, text, name, encoding)
    assert row == {"prompt": "é", **({"answer": "1, 2"} if name == "a.tsv" else {})}


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n'))
    rows = read_rows(tmp_path / "a.jsonl.gz")
    assert (list(rows), rows.row_id(0)) == ([{"prompt": "a"}], "a.jsonl.gz:1")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"prompt\na\n")[:-3])
    with pytest.raises(DataError, match=r"b\.csv\.gz: not a gzip file"):
        read_rows(tmp_path / "b.csv.gz")
    (tmp_path / "c.parquet.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.parquet\.gz: files of type '\.parquet\.gz' cannot be read"):
        read_rows(tmp_path / "c.parquet.gz")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n\n3\n", r"a\.csv:4: 1 field, but the header has 2 columns$"),
        ("a.csv", 'a,b\n"x\ny",2\n1,2,3\n', r"a\.csv:4: 3 fields, .* a comma in it must be in double quotes"),
        ("a.csv", "a,b, a\n1,2,3\n", r"a\.csv: its header has 2 columns called `a`"),
        ("a.csv", "a,,\n1,2,3\n", r"a\.csv: its header has 2 columns without a name"),
        ("a.csv", 'a,b\n1,2\n"x,2\n3,4\n', r"a\.csv:3: .*a quoted field that begins in this row is not closed"),
        ("a.csv", 'a,b\n1,2\n"x"y,2\n', r'a\.csv:3: .*is written twice, ""'),
        ("a.csv", "a,b\n1,2\n3,\0\n", r"a\.csv:3: a NUL byte"),
        ("a.csv", "sep=|\na|b\n1|2|3\n", r"a\.csv:3: 3 fields, .* a field with '\|' in it must be in double quotes"),
        ("a.csv", "a,b\n", r"a\.csv: no rows in it"),
        ("a.csv", "", r"a\.csv: no rows in it"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "b": {"c": 2, "c": 3}}', r"a\.jsonl:2: an object has the name 'c' twice"),
        ("a.json", '[{"a": 1}, {"a": 1, "a": 2}]', r"a\.json, row 2: an object has the name 'a' twice"),
        ("a.jsonl", '{"a": "b"}\n{"a": ["\\ud800!"]}', r"a\.jsonl:2: '\\ud800' holds half of a surrogate pair"),
        ("a.json", '[{"a": "b"}, {"a": "\\udc00"}]', r"a\.json, row 2: '\\udc00' holds half of a surrogate pair"),
        ("a.jsonl", f'{{"a": {"1" * 5000}}}', r"a\.jsonl:1: not JSON that can be read: Exceeds the limit"),
        ("a.jsonl", f'{{"a": {"[" * 100_000}', r"a\.jsonl:1: lists or objects are nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, text, name)


def test_text_of_another_encoding_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:2: not UTF-8 text: .* at byte 12 of the file; save it as UTF-8"):
        table(tmp_path, "a,answer\nx,é\n", encoding="latin-1")


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    assert table(tmp_path, '{"a": "\\ud83d\\ude00"}', "a.jsonl") == [{"a": "😀"}]
    with pytest.raises(DataError, match=r"rows given as a list, row 1: .* half of a surrogate pair"):
        read_rows([{"prompt": "\ud800"}])


@pytest.mark.parametrize(
    ("reads", "text", "found"),
    [
        ("preferences", "prompt,chosen,rejected,margin\na,b,c,0.5\n", {"margin": 0.5, "chosen": "b"}),
        (
            "preferences",
            'prompt,completions,scores\na,"[""b"", ""c""]","[1, 0.5]"\n',
            {"completions": ["b", "c"], "scores": [1, 0.5]},
        ),
        ("steps", 'prompt,steps,labels\na,"[""b"", ""c""]","[true, 0]"\n', {"steps": ["b", "c"], "labels": [True, 0]}),
        ("steps", 'prompt,completion,positions,labels\na,bc,"[1, 2]","[1, 0]"\n', {"positions": [1, 2]}),
        ("demonstrations", 'messages\n"[{""role"": ""user""}]"\n', {"messages": [{"role": "user"}]}),
        # Where another method reads numbers and lists, these are a reward's texts.
        (
            "prompts",
            "prompt,margin,scores,labels\na,0.50,[1],yes\n",
            {"margin": "0.50", "scores": "[1]", "labels": "yes"},
        ),
    ],
)
def test_what_a_method_reads_as_numbers_and_lists_is_read_so(
    tmp_path: Path, reads: Reads, text: str, found: Mapping[str, Any]
) -> None:
    [row] = user_rows(written(tmp_path / "a.csv", text), {}, reads)
    assert {name: row[name] for name in found} == found


@pytest.mark.parametrize(
    ("reads", "text", "message"),
    [
        (
            "preferences",
            "prompt,chosen,rejected,margin\na,b,c,1\na,b,c,much\n",
            "3: column `margin` must be a number, not",
        ),
        ("preferences", "prompt,chosen,rejected,margin\na,b,c,\n", "2: column `margin` must be a number, not ''"),
        ("steps", "prompt,steps,labels\na,\"['b']\",[1]\n", "2: column `steps` must be a list .* as Python writes it"),
        ("steps", 'prompt,steps,labels\na,"[""b""]",1\n', "2: column `labels` must be a list written as JSON, not '1'"),
    ],
)
def test_text_that_is_no_number_or_list_names_its_line(tmp_path: Path, reads: Reads, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.csv:{message}"):
        user_rows(written(tmp_path / "a.csv", text), {}, reads)
