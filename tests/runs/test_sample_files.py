"""Samples on disk: a file for each recent step, one for every hundred before them, and the same rows either way."""

import random
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sharpen.errors import DataError, DiskError
from sharpen.runs import sample_files, sample_merge
from sharpen.runs.sample_files import MERGED_STEPS, SampleFiles
from sharpen.runs.samples import write_parquet

MISSES_JUDGE = (3, 4, 9)
"""Steps without the second reward."""
FAILED = (2, 9)
"""Steps in which every reward failed, so that a column has only nulls, which have no type."""


def rows_of(step: int) -> list[dict[str, Any]]:
    """Three samples, whose columns are not those of every step."""
    return [
        {
            "step": step,
            "prompt": f"{step}+{number}=",
            "reward": None if step in FAILED else step / 8 + number,
            "error": "no" if step in FAILED else None,
            **({} if step in MISSES_JUDGE else {"reward/judge": float(number)}),
            "tokens": 5 + number,
        }
        for number in range(3)
    ]


def written(folder: Path, steps: Sequence[int], every: int = 1) -> SampleFiles:
    files = SampleFiles(folder)
    for step in steps:
        assert files.write(step, rows_of(step), every=every) == []
    return files


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def singles(steps: Sequence[int]) -> list[str]:
    return [f"step_{step:06d}.parquet" for step in steps]


def contents(files: SampleFiles) -> list[dict[str, Any]]:
    """All rows, a column that a step does not have as null."""
    return sorted(
        ({**dict.fromkeys(rows_of(1)[0]), **row} for table in files.tables() for row in table.to_pylist()),
        key=lambda row: (row["step"], row["tokens"]),
    )


def expected(steps: Sequence[int]) -> list[dict[str, Any]]:
    return [{**dict.fromkeys(rows_of(1)[0]), **row} for step in steps for row in rows_of(step)]


@pytest.fixture
def by_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_files, "MERGED_STEPS", 10)


def test_two_thousand_steps_are_twenty_files(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path)
    for step in range(1, 151):
        files.write(step, rows_of(step))
    assert names(tmp_path) == [*singles(range(101, 151)), "steps_000001-000100.parquet"]
    for step in range(151, 2001):
        files.write(step, rows_of(step))
    assert names(tmp_path) == [f"steps_{first:06d}-{first + 99:06d}.parquet" for first in range(1, 2001, 100)]
    assert files.steps() == [*range(1, 2001)]
    assert contents(files) == expected(range(1, 2001))


def test_with_samples_of_every_tenth_step_a_hundred_of_them_are_a_file(tmp_path: Path) -> None:
    files = written(tmp_path, range(0, 1021, 10), every=10)
    assert names(tmp_path) == [*singles((0, 1010, 1020)), "steps_000001-001000.parquet"]
    assert files.steps() == [*range(0, 1021, 10)]
    assert files.of_step(1000).to_pylist() == rows_of(1000)
    assert files.of_step(995) is None


@pytest.mark.parametrize("row_group_bytes", [1, 2**20])
def test_a_step_is_read_as_it_was_written(
    row_group_bytes: int, by_ten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also its columns, and the types of those that have values."""
    monkeypatch.setattr(sample_merge, "ROW_GROUP_BYTES", row_group_bytes)
    alone = SampleFiles(tmp_path / "lr=0.1" / "alone")
    merged = written(tmp_path / "lr=0.1" / "merged", range(1, 11))
    for step in range(1, 11):
        alone.write(step, rows_of(step), every=1000)
    assert names(merged.folder) == ["steps_000001-000010.parquet"]
    for step in range(1, 11):
        single, from_merged = alone.of_step(step), merged.of_step(step)
        assert from_merged.to_pylist() == single.to_pylist() == rows_of(step)
        assert {f.name: f.type for f in from_merged.schema} == {f.name: f.type for f in single.schema}
    columns = pq.read_table(merged.folder / "steps_000001-000010.parquet", partitioning=None).column_names
    assert columns == list(rows_of(1)[0])


@pytest.mark.parametrize("back_to", [0, 5, 10, 14, 20, 25])
def test_cut_back_is_as_if_it_had_stopped_there(back_to: int, by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path / "cut", range(27))
    assert files.cut_back(back_to) == []
    stopped = written(tmp_path / "stopped", range(back_to + 1))
    assert names(files.folder) == names(stopped.folder)
    for step in range(back_to + 1):
        assert files.of_step(step).to_pylist() == rows_of(step)
    for step in range(back_to + 1, 41):
        assert files.of_step(step) is None
        files.write(step, rows_of(step))
    assert names(files.folder) == [*singles([0]), *(f"steps_{n:06d}-{n + 9:06d}.parquet" for n in (1, 11, 21, 31))]
    assert contents(files) == expected(range(41))


def test_killed_between_a_merge_and_the_removals_nothing_is_lost_or_counted_twice(by_ten: None, tmp_path: Path) -> None:
    before = written(tmp_path / "killed", range(1, 10))
    shutil.copytree(before.folder, tmp_path / "before")
    before.write(10, rows_of(10))
    for name in singles((4, 5, 9)):
        shutil.copy(tmp_path / "before" / name, before.folder)
    (before.folder / "steps_000011-000020.parquet.partial").write_text("half")
    for look in (before, SampleFiles(before.folder)):
        assert contents(look) == expected(range(1, 11))
        assert look.of_step(4).to_pylist() == rows_of(4)
        assert look.steps() == [*range(1, 11)]
    shutil.copytree(before.folder, tmp_path / "earlier")
    assert before.cut_back(10) == []
    assert names(before.folder) == ["steps_000001-000010.parquet"]
    assert contents(before) == expected(range(1, 11))
    earlier = SampleFiles(tmp_path / "earlier")
    assert earlier.cut_back(6) == []
    assert names(earlier.folder) == singles(range(1, 7))
    assert contents(earlier) == expected(range(1, 7))


def test_samples_at_other_intervals_than_before_are_found(by_ten: None, tmp_path: Path) -> None:
    """Someone edits ``log.samples_every`` of a run: the ranges of merged files then overlap."""
    files = written(tmp_path, range(1, 13))
    for step in range(14, 41, 2):
        files.write(step, rows_of(step), every=2)
    sampled = [*range(1, 13), *range(14, 41, 2)]
    assert names(tmp_path) == [
        "steps_000001-000010.parquet",
        "steps_000001-000020.parquet",
        "steps_000021-000040.parquet",
    ]
    assert files.steps() == sampled
    assert contents(files) == expected(sampled)
    for step in sampled:
        assert files.of_step(step).to_pylist() == rows_of(step)


def damaged(file: Path) -> None:
    """A bit of the first column's values is another."""
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(file.read_bytes())
    content[begin + column.total_compressed_size - 2] ^= 1
    file.write_bytes(content)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def zeroed(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [damaged, emptied, zeroed, cut])
def test_a_damaged_file_is_named_and_the_others_are_merged(damage: Any, by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path, range(1, 10))
    bad = tmp_path / "step_000007.parquet"
    damage(bad)
    for read in (files.tables, lambda: files.of_step(7)):
        with pytest.raises(DataError, match=rf"{bad}: damaged, its samples cannot be read: "):
            read()
    [said] = files.write(10, rows_of(10))
    assert said.startswith(f"{bad}: damaged, its samples cannot be read: ")
    assert said.endswith("; set aside as damaged_step_000007.parquet")
    assert names(tmp_path) == ["damaged_step_000007.parquet", "steps_000001-000010.parquet"]
    assert contents(files) == expected([*range(1, 7), 8, 9, 10])
    assert files.of_step(7) is None


@pytest.mark.parametrize("damage", [damaged, emptied, zeroed, cut])
def test_a_damaged_merged_file_is_named_and_set_aside_when_a_run_goes_back_into_it(
    damage: Any, by_ten: None, tmp_path: Path
) -> None:
    files = written(tmp_path, range(1, 13))
    bad = tmp_path / "steps_000001-000010.parquet"
    damage(bad)
    for read in (files.tables, files.steps, lambda: files.of_step(7)):
        with pytest.raises(DataError, match=rf"{bad}: damaged, its samples cannot be read: "):
            read()
    assert files.of_step(11).to_pylist() == rows_of(11)
    [said] = files.cut_back(8)
    assert said.startswith(f"{bad}: damaged")
    assert names(tmp_path) == ["damaged_steps_000001-000010.parquet"]


def test_columns_that_fit_no_common_type_stay_in_files_of_their_own(by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path, range(1, 10))
    files.write(5, [{"step": 5, "tokens": "many"}])
    [said] = files.write(10, rows_of(10))
    assert said.startswith(f"{tmp_path / 'steps_000001-000010.parquet'}: cannot be made of the files of its steps: ")
    assert said.endswith("; they stay as they are")
    assert names(tmp_path) == singles(range(1, 11))
    assert files.of_step(5).to_pylist() == [{"step": 5, "tokens": "many"}]


def test_a_reader_sees_every_step_once_while_the_run_writes_and_merges(by_ten: None, tmp_path: Path) -> None:
    files, last = SampleFiles(tmp_path), 150
    files.write(1, rows_of(1))

    def write() -> None:
        for step in range(2, last + 1):
            files.write(step, rows_of(step))

    writer = threading.Thread(target=write)
    writer.start()
    looks, reader, chosen = 0, SampleFiles(tmp_path), random.Random(7)
    while writer.is_alive():
        found = [row["step"] for row in contents(reader)]
        reached = found[-1]
        assert found == [step for step in range(1, reached + 1) for _ in range(3)]
        step = chosen.randint(1, reached)
        assert reader.of_step(step).to_pylist() == rows_of(step)
        looks += 1
    writer.join()
    assert looks > 5
    assert contents(reader) == expected(range(1, last + 1))


def test_samples_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where the folder was")
    with pytest.raises(DiskError, match=r"step_000003\.parquet: the samples of step 3 cannot be written: "):
        SampleFiles(tmp_path / "samples").write(3, rows_of(3))


def test_a_damaged_file_of_a_merge_that_was_killed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are not in the merged file, so it is set aside and named when the run goes on."""
    monkeypatch.setattr(sample_files, "MERGED_STEPS", 3)
    files = SampleFiles(tmp_path)
    for step in (1, 2):
        files.write(step, [{"step": step, "prompt": "a"}])
    (tmp_path / "step_000002.parquet").write_bytes(b"damaged")

    def killed(file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sample_files, "_set_aside", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write(3, [{"step": 3, "prompt": "a"}])
    [said] = SampleFiles(tmp_path).cut_back(3)
    assert said == f"{tmp_path}/step_000002.parquet: damaged; set aside as damaged_step_000002.parquet"
    assert (tmp_path / "damaged_step_000002.parquet").read_bytes() == b"damaged"
    assert SampleFiles(tmp_path).steps() == [1, 3]


def flip(file: Path, row_group: int, column: str) -> None:
    """A bit of this column's values in one group of rows is another."""
    found = pq.ParquetFile(file).metadata.row_group(row_group)
    place = next(found.column(i) for i in range(found.num_columns) if found.column(i).path_in_schema == column)
    begin = place.dictionary_page_offset or place.data_page_offset
    content = bytearray(file.read_bytes())
    content[begin + place.total_compressed_size - 2] ^= 1
    file.write_bytes(content)


def test_columns_of_a_step_are_those_of_the_whole_step(by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path, range(1, 13))
    for step in (3, 9, 11):
        whole = files.of_step(step)
        wanted = ("reward/judge", "tokens", "step", "never heard of")
        some = files.of_step(step, wanted)
        there = [name for name in whole.column_names if name in wanted]
        assert some.equals(whole.select(there)), step
        assert some.column_names == (["step", "tokens"] if step in MISSES_JUDGE else ["step", "reward/judge", "tokens"])
    assert files.of_step(13, ["step"]) is None
    everything = [row for table in files.tables(["step", "prompt"]) for row in table.to_pylist()]
    assert everything == [{"step": s, "prompt": row["prompt"]} for s in range(1, 13) for row in rows_of(s)]


def test_which_columns_a_step_has_and_which_steps_have_a_column(by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path, range(1, 13))
    assert files.steps_with("tokens") == [*range(1, 13)]
    assert files.steps_with("reward/judge") == [step for step in range(1, 13) if step not in MISSES_JUDGE]
    # All its values are null there, and it is there.
    assert set(FAILED) <= set(files.steps_with("reward"))
    assert files.steps_with("token_ids") == []
    for step in (11, 12):
        assert files.columns_of_step(step) == list(rows_of(step)[0])
    assert "reward/judge" in files.columns_of_step(1)
    assert files.columns_of_step(13) == []


def test_files_of_a_step_tell_whether_they_are_the_same(by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path, range(1, 9))
    before = {step: files.written(step) for step in (3, 8)}
    assert [name for name, _, _ in before[3]] == singles([3])
    assert files.written(9) == ()
    files.write(9, rows_of(9))
    assert {step: files.written(step) for step in (3, 8)} == before
    files.write(8, rows_of(4))
    assert (files.written(3), files.written(8) == before[8]) == (before[3], False)
    files.write(10, rows_of(10))
    assert [name for name, _, _ in files.written(3)] == ["steps_000001-000010.parquet"]


def test_only_what_is_asked_for_is_read(by_ten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage elsewhere is then not met: in another column, or in the rows of another step."""
    monkeypatch.setattr(sample_merge, "ROW_GROUP_BYTES", 1)
    files = written(tmp_path, range(1, 11))
    merged = tmp_path / "steps_000001-000010.parquet"
    flip(merged, 4, "prompt")
    with pytest.raises(DataError, match="damaged"):
        files.of_step(5)
    assert files.of_step(5, ["step", "tokens"]).to_pylist() == [{"step": 5, "tokens": 5 + n} for n in range(3)]
    for step in (1, 4, 6, 10):
        assert files.of_step(step).to_pylist() == rows_of(step)
    assert files.steps() == files.steps_with("prompt") == [*range(1, 11)]
    assert len(files.tables(["tokens"])[0]) == 30


def test_columns_of_a_damaged_file_are_an_error_that_names_it(by_ten: None, tmp_path: Path) -> None:
    files = written(tmp_path, range(1, 13))
    for bad, step in (("steps_000001-000010.parquet", 3), ("step_000012.parquet", 12)):
        cut(tmp_path / bad)
        for read in (lambda s=step: files.columns_of_step(s), lambda: files.steps_with("tokens")):
            with pytest.raises(DataError, match=rf"{bad}: damaged, its samples cannot be read: "):
                read()
        shutil.copy(written(tmp_path / "again", range(1, 13)).folder / bad, tmp_path / bad)


def test_what_is_in_a_merged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that follows a long run asks every few seconds, and only what is new may cost something."""
    files = SampleFiles(tmp_path)
    for step in range(1, 2 * MERGED_STEPS + 1):
        files.write(step, [{"step": step, "completion": "x", "extra" if step > MERGED_STEPS else "other": 1}])
    opened: list[str] = []
    whole, schema = pq.ParquetFile, pq.read_schema
    monkeypatch.setattr(pq, "ParquetFile", lambda file, **kw: opened.append(Path(file).name) or whole(file, **kw))
    monkeypatch.setattr(pq, "read_schema", lambda file, **kw: opened.append(Path(file).name) or schema(file, **kw))
    assert files.steps() == [*range(1, 201)]
    assert files.steps_with("extra") == [*range(101, 201)]
    assert {*opened} == {"steps_000001-000100.parquet", "steps_000101-000200.parquet"}
    opened.clear()
    assert files.steps() == [*range(1, 201)]
    assert files.steps_with("extra") == [*range(101, 201)]
    assert opened == []
    # Another file of that name is read again: a resumed run has written it anew.
    write_parquet(tmp_path / "steps_000101-000200.parquet", [{"step": 150, "completion": "y", "extra": 2}])
    assert files.steps() == [*range(1, 101), 150]
    assert opened == ["steps_000101-000200.parquet"]
