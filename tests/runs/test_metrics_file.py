"""``metrics.jsonl``: what is wrong with it is named with the line, and a resumed run mends what can be mended."""

import json
import resource
from pathlib import Path

import pytest

from sharpen.errors import DataError, DiskError
from sharpen.pipelines.seeds import _last_row
from sharpen.runs.folder import read_metrics
from sharpen.runs.metrics_file import MetricsFile
from sharpen.runs.steps_in_words import gaps, spans_of, steps_in_words


def line(step: int, loss: float = 0.5) -> bytes:
    return json.dumps({"step": step, "loss": loss}).encode() + b"\n"


DAMAGE = {
    "blank": (b"\n", "is blank"),
    "spaces": (b"  \n", "is blank"),
    "NULs": (b"\0" * 40 + b"\n", "holds NUL bytes"),
    "cut": (b'{"step": 2, "lo\n', "is not JSON"),
    "two in one": (b'{"step": 2, "lo{"step": 2}\n', "is not JSON"),
    "other bytes": (b"\xff\xfe\n", "is not JSON"),
    "a list": (b"[2, 0.5]\n", "is not an object"),
    "a number": (b"7\n", "is not an object"),
    "no step": (b'{"loss": 0.5}\n', "has no `step` that is a whole number"),
    "half a step": (b'{"step": 2.5}\n', "has no `step` that is a whole number"),
    "true": (b'{"step": true}\n', "has no `step` that is a whole number"),
    "a step before the first": (b'{"step": -1}\n', "has no `step` that is a whole number"),
    "a text": (b'{"step": 2, "loss": "0.5"}\n', 'has "loss" that is not a number'),
    "null": (b'{"step": 2, "loss": null}\n', 'has "loss" that is not a number'),
    "deep": (b"[" * 100_000 + b"\n", "is not JSON"),
    "a long number": (b'{"step": ' + b"9" * 10_000 + b"}\n", "is not JSON"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_line_is_named_and_left_out(kind: str, tmp_path: Path) -> None:
    damage, said = DAMAGE[kind]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(0) + line(1) + damage + line(2) + line(3))
    rows, problems = MetricsFile(path).read()
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert problems == [f"{path}: line 3 {said}; resuming the run mends it"]
    # What shows the progress of a seed reads the last line alone.
    path.write_bytes(line(0) + damage)
    assert _last_row(path) is None


def test_a_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = line(1) + line(2)
    for end in range(len(line(1)), len(whole) - 1):
        path.write_bytes(whole[:end])
        assert MetricsFile(path).read() == ([{"step": 1, "loss": 0.5}], [])
    # Whole, but for the line break: an editor may have taken it.
    path.write_bytes(whole[:-1])
    assert MetricsFile(path).read() == ([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}], [])
    assert MetricsFile(path).cut_back(2) == []
    assert path.read_bytes() == whole


def test_of_two_rows_of_a_step_the_later_counts_and_rows_are_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + line(3) + line(2) + line(3, loss=0.25))
    rows, problems = MetricsFile(path).read()
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    assert problems == [
        f"{path}: line 3 is of step 2, after one of step 3; line 4 is of step 3 again, as line 2; "
        "resuming the run mends it"
    ]


def test_missing_steps_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(3) + line(4) + line(8) + line(10**15))
    _, problems = MetricsFile(path).read()
    assert problems == [f"{path}: no metrics of steps 1, 2, 5 to 7, 9 to {10**15 - 1}"]
    assert gaps([0, 1, 2], 2) == []
    assert gaps([], -1) == []
    assert steps_in_words(gaps([1, 3], 3)) == "step 2"
    assert steps_in_words(spans_of([5, 4, 4, 1])) == "steps 1, 4, 5"
    assert steps_in_words(spans_of(range(0, 100, 5))) == "steps 0, 5, 10, 15, 20, 25, 30, …, 95"


def test_many_damaged_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + b"\n" * 12)
    _, [problem] = MetricsFile(path).read()
    assert problem.endswith("line 5 is blank; line 6 is blank; and 7 more; resuming the run mends it")


def test_resuming_keeps_a_copy_of_what_it_mends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    found = line(0) + b"\0\0\n" + line(1) + line(3) + line(2) + line(4) + b'{"step": 5, "lo' + b"\0" * 9
    path.write_bytes(found)
    assert MetricsFile(path).cut_back(3) == [
        f"{path}: line 2 holds NUL bytes; line 5 is of step 2, after one of step 3; line 7 holds NUL bytes: mended; "
        "damaged_metrics.jsonl is the file as it was"
    ]
    assert path.read_bytes() == line(0) + line(1) + line(2) + line(3)
    assert (tmp_path / "damaged_metrics.jsonl").read_bytes() == found
    assert MetricsFile(path).cut_back(3) == []


def test_rows_that_are_gone_before_the_checkpoint_are_named_each_time(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(0) + line(1) + line(5) + line(6))
    hole = (
        f"{path}: no metrics of steps 2 to 4: the run goes on from step 5 without them; "
        "to have them, remove the checkpoints after step 1 before you resume"
    )
    assert MetricsFile(path).cut_back(5) == [hole]
    assert path.read_bytes() == line(0) + line(1) + line(5)
    path.unlink()
    [gone] = MetricsFile(path).cut_back(5)
    assert "no metrics of steps 1 to 5" in gone
    assert MetricsFile(path).cut_back(-1) == []
    assert not path.exists()


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_part_of_it(tmp_path: Path) -> None:
    """A limit on the size of files ends a write as a full disk does: a part is written, and then it fails."""
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.append({"step": 1, "loss": 0.5})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(line(1)) + 10, hard))
    try:
        with pytest.raises(DiskError, match=rf"{path}: the metrics of step 2 cannot be written: File too large"):
            metrics.append({"step": 2, "loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    metrics.append({"step": 2, "loss": 0.75})
    assert path.read_bytes() == line(1) + line(2, loss=0.75)


def test_a_run_without_metrics_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DataError, match=rf"{tmp_path / 'metrics.jsonl'}: there are no metrics"):
        read_metrics(tmp_path, said.append)
    (tmp_path / "metrics.jsonl").write_bytes(b"\0" * 99)
    with pytest.raises(DataError, match="there are no metrics"):
        read_metrics(tmp_path, said.append)
    assert said == [f"{tmp_path / 'metrics.jsonl'}: line 1 holds NUL bytes; resuming the run mends it"]
