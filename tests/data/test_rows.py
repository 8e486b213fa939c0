import re

import datasets
import pytest

from sharpen.data.rows import read_rows
from sharpen.errors import DataError, RecipeError

TWO = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "two.jsonl", '{"prompt": "a", "answer": 1}\n\n{"prompt": "b", "answer": 2}\n')
    write(tmp_path / "two.json", '[{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]')
    write(tmp_path / "two.csv", 'prompt,answer\na,1\n"b",2\n')
    datasets.Dataset.from_list(TWO).to_parquet(tmp_path / "two.parquet")
    return tmp_path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_file_format_gives_the_same_rows(files, suffix):
    rows = read_rows(str(files / f"two.{suffix}"))
    # A table has no numbers: its values are the text that stands in it.
    assert list(rows) == ([{**row, "answer": str(row["answer"])} for row in TWO] if suffix == "csv" else TWO)
    assert rows.columns == ("prompt", "answer")
    assert rows.row_id(1) == f"two.{suffix}:2"


def test_lists_and_datasets():
    assert list(read_rows(TWO)) == TWO
    assert list(read_rows(datasets.Dataset.from_list(TWO))) == TWO
    rows = read_rows(TWO, name="mine")
    assert (rows.where(0), rows.row_id(0), read_rows(rows)) == ("mine, row 1", "mine:1", rows)


def test_columns_are_those_of_all_rows():
    assert read_rows([{"a": 1}, {"b": 2, "a": 3}]).columns == ("a", "b")


def test_lines_are_counted_with_blank_ones(files):
    assert read_rows(files / "two.jsonl").where(1) == f"{files}/two.jsonl:3"


def test_a_folder_is_read_with_its_split(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    for split in ("train", "test"):
        datasets.Dataset.from_list(TWO).to_parquet(folder / f"{split}.parquet")
    assert list(read_rows(f"{folder}?split=test")) == TWO
    with pytest.raises(DataError, match=r"has the splits train, test; choose one: .*\?split=train"):
        read_rows(str(folder))
    with pytest.raises(RecipeError, match=r"unknown key 'spilt'. Did you mean `split`\?"):
        read_rows(f"{folder}?spilt=test")
    with pytest.raises(DataError, match=r"no dataset could be loaded from this folder: .*dev"):
        read_rows(f"{folder}?split=dev")


def test_a_dictionary_of_splits_must_be_chosen_from():
    two = datasets.Dataset.from_list(TWO)
    with pytest.raises(DataError, match=r"splits train, test; choose one: dataset\['train'\]"):
        read_rows(datasets.DatasetDict(train=two, test=two))
    assert list(read_rows(datasets.DatasetDict(train=two))) == TWO


def test_a_missing_file_names_the_nearest(files):
    with pytest.raises(DataError, match=r"tow\.jsonl: no such file\. Did you mean `two\.jsonl`\?"):
        read_rows(files / "tow.jsonl")
    with pytest.raises(DataError, match=r"the folder .*nowhere does not exist either"):
        read_rows(files / "nowhere" / "two.jsonl")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.jsonl", '{"a": 1}\n{"a": \n', r"bad\.jsonl:2: not JSON: Expecting value at character 7"),
        (
            "bad.jsonl",
            '{"a": 1}\n\n[2]\n',
            r"bad\.jsonl:3: a row must be an object of columns, not list \(\[2\]",
        ),
        ("bad.json", '{"a": 1}\n{"a": 2}\n', r"bad\.json:2: not JSON: Extra data .* name it \.jsonl"),
        ("bad.json", '{"a": 1}', r"bad\.json: a \.json file must hold a list of objects, not dict"),
        ("bad.json", "[1]", r"bad\.json, row 1: a row must be an object of columns, not int"),
        ("bad.csv", "a,b\n1,2\n3\n", r"bad\.csv:3: 1 field, but the header has 2 columns"),
        ("bad.parquet", "PAR?", r"bad\.parquet: not a Parquet file"),
        ("empty.jsonl", "\n", r"empty\.jsonl: no rows in it"),
        ("empty.csv", "a,b\n", r"empty\.csv: no rows in it"),
        ("bad.txt", "x", r"bad\.txt: files of type '\.txt' cannot be read; give one of \.jsonl"),
    ],
)
def test_malformed_files_are_named_with_the_place(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read_rows(write(tmp_path / name, text))


def test_text_must_be_utf8(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl:1: not UTF-8 text: .* at byte 8"):
        read_rows(tmp_path / "latin.jsonl")


def test_what_is_no_data_is_refused():
    with pytest.raises(DataError, match="rows given as a list: no rows in it"):
        read_rows([])
    with pytest.raises(DataError, match=re.escape("not int")):
        read_rows(3)
    with pytest.raises(DataError, match="streamed dataset"):
        read_rows(datasets.Dataset.from_list(TWO).to_iterable_dataset())


def test_a_list_of_texts_is_a_list_of_prompts() -> None:
    assert list(read_rows(["1+1=", "2+2="])) == [{"prompt": "1+1="}, {"prompt": "2+2="}]
