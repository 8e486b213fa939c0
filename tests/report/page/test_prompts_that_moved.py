"""How each prompt's mean reward moved, from the samples' columns alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import DataError
from sharpen.report.page import prompts
from sharpen.report.page.prompts import prompts_chunk
from sharpen.runs import sample_files
from sharpen.runs.folder import RunFolder

Row = Mapping[str, Any]


def rows_of(prompt: str, rewards: Sequence[float | None], **columns: Any) -> list[Row]:
    return [
        {"prompt_id": prompt, "prompt": f"the text of {prompt}", "completion": "c", "reward": reward, **columns}
        for reward in rewards
    ]


def write_training(folder: RunFolder, by_step: Mapping[int, Sequence[Row]]) -> None:
    for step, rows in by_step.items():
        folder.sample_files.write(step, [{"step": step, **row} for row in rows])


def test_held_out_prompts_are_compared_between_the_first_and_the_last_evaluation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step, gain in ((0, 0.0), (5, 9.0), (10, 0.25)):
        rows = [*rows_of("p1", [gain, 0.5 + gain]), *rows_of("p2", [1.0, None, 0.5 - gain])]
        folder.write_held_out(step, rows, every=5)
    assert prompts_chunk(folder) == {
        "held_out": {
            "steps": [0, 10],
            "left_out": 0,
            # The one that fell most is the first.
            "rows": [
                {
                    "prompt_id": "p2",
                    "source": None,
                    "prompt": "the text of p2",
                    "first": {"step": 0, "mean": 0.75, "n": 2},
                    "last": {"step": 10, "mean": 0.625, "n": 2},
                    "change": -0.125,
                },
                {
                    "prompt_id": "p1",
                    "source": None,
                    "prompt": "the text of p1",
                    "first": {"step": 0, "mean": 0.25, "n": 2},
                    "last": {"step": 10, "mean": 0.5, "n": 2},
                    "change": 0.25,
                },
            ],
        },
        "training": None,
    }


@pytest.mark.parametrize("merged_steps", [100, 3])
def test_training_prompts_are_compared_between_their_first_and_last_visit(
    merged_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In files of their own and in merged ones; p3 is seen once, and p2's last rewards all failed."""
    monkeypatch.setattr(sample_files, "MERGED_STEPS", merged_steps)
    folder = RunFolder(tmp_path)
    visits = {
        1: [*rows_of("p1", [0.0, 1.0]), *rows_of("p2", [1.0, 1.0])],
        2: rows_of("p3", [1.0]),
        3: rows_of("p1", [7.0]),
        4: rows_of("p2", [0.25, None]),
        5: rows_of("p2", [None, None]),
        6: rows_of("p1", [0.75, 0.25, 1.0, 1.0]),
    }
    write_training(folder, visits)
    found = prompts_chunk(folder)
    assert found["held_out"] is None
    assert found["training"]["steps"] == [1, 6]
    moved = {row["prompt_id"]: (row["first"], row["last"], row["change"]) for row in found["training"]["rows"]}
    assert moved == {
        "p1": ({"step": 1, "mean": 0.5, "n": 2}, {"step": 6, "mean": 0.75, "n": 4}, 0.25),
        "p2": ({"step": 1, "mean": 1.0, "n": 2}, {"step": 4, "mean": 0.25, "n": 1}, -0.75),
    }


def test_prompts_of_several_sources_or_with_another_text_are_others(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_training(
        folder,
        {
            1: [*rows_of("1", [0.0], source="a"), *rows_of("1", [1.0], source="b"), *rows_of("2", [0.0], source="a")],
            2: [*rows_of("1", [1.0], source="a"), *rows_of("1", [1.0], source="b")],
            3: [{**row, "prompt": "changed"} for row in rows_of("2", [1.0], source="a")],
        },
    )
    rows = prompts_chunk(folder)["training"]["rows"]
    assert [(row["source"], row["prompt_id"], row["change"]) for row in rows] == [("b", "1", 0.0), ("a", "1", 1.0)]


def test_of_very_many_those_that_moved_most_both_ways_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MOST_CHARS", 8)
    folder = RunFolder(tmp_path)
    write_training(
        folder,
        {
            1: [row for i in range(9) for row in rows_of(f"p{i}", [0.0])],
            2: [row for i in range(9) for row in rows_of(f"p{i}", [i - 4.0])],
        },
    )
    found = prompts_chunk(folder, most_rows=5)["training"]
    assert [row["change"] for row in found["rows"]] == [-4, -3, 2, 3, 4]
    assert (found["left_out"], found["rows"][0]["prompt"]) == (4, "the text")


def test_a_run_without_samples_has_no_prompts_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert prompts_chunk(folder) == {"held_out": None, "training": None}
    write_training(folder, {1: rows_of("p", [None]), 2: rows_of("p", [None])})
    assert prompts_chunk(folder) == {"held_out": None, "training": None}
    bad = tmp_path / "samples" / "step_000002.parquet"
    bad.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{bad}: damaged"):
        prompts_chunk(folder)
