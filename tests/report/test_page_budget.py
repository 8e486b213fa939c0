"""A report stays small whatever the run is: which steps it keeps, and that it says what it leaves out."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from page_runs import Page, large_run, row, run_on_disk, text_of
from sharpen.report.page import budget
from sharpen.report.page.budget import in_order
from sharpen.report.page.html import write_report
from sharpen.runs.folder import RunFolder


def test_however_many_steps_are_taken_they_lie_evenly() -> None:
    assert list(in_order(range(1, 10))) == [1, 9, 5, 3, 7, 2, 4, 6, 8]
    assert list(in_order(range(1, 10), first=(6, 9, 77)))[:4] == [1, 9, 6, 5]
    assert list(in_order([4])) == [4]
    assert list(in_order([])) == []
    for count in (2, 3, 10, 101):
        assert sorted(in_order(range(count))) == list(range(count))


def noise(seed: int, chars: int) -> str:
    """What cannot be compressed well, so that little of it is large."""
    return "".join(random.Random(seed).choices(string.ascii_letters, k=chars))


def test_what_there_is_not_room_for_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BYTES", {"training": 60_000, "held_out": 60_000, "tokens": 60_000})
    run = large_run(tmp_path / "run", steps=40, groups=1, group_size=4, chars=900, text=noise)
    page = Page(write_report([run], tmp_path / "report.html", say=print))
    shown = page.data["runs"][0]["steps"]
    chunks = page.chunks()
    assert shown["training"] == sorted(int(name.split("/")[1]) for name in chunks if name.startswith("training/"))
    # A step is 4 × 900 letters, of which each takes 0.95 bytes or so as text; the prompt comes with it.
    assert 10 <= len(shown["training"]) <= 20
    assert (shown["training"][0], shown["training"][-1]) == (1, 40)
    assert shown["left_out"] == {"training": 40 - len(shown["training"])}
    gaps = [b - a for a, b in zip(shown["training"], shown["training"][1:], strict=False)]
    assert max(gaps) <= 5
    assert not any(one["cut"] for one in chunks["training/1"]["groups"][0]["rows"])


def test_the_best_step_and_the_steps_with_tokens_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = large_run(tmp_path / "run", steps=40, groups=1, group_size=4, chars=900, text=noise, tokens_every=17)
    values = {0: 0.1, 10: 0.2, 23: 0.9, 40: 0.3}
    lines = [{"step": step, "held_out/pass@1": value} for step, value in values.items()]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(f'{{"step": {line["step"]}, "held_out/pass@1": {line["held_out/pass@1"]}}}\n' for line in lines)
    monkeypatch.setattr(budget, "BYTES", {"training": 24_000, "held_out": 60_000, "tokens": 9_000_000})
    page = Page(write_report([run], tmp_path / "report.html", say=print))
    shown = page.data["runs"][0]["steps"]
    assert set(shown["training"]) >= {1, 17, 23, 34, 40}
    assert len(shown["training"]) < 10
    assert shown["tokens"] == [17, 34]
    assert {f"tokens/{step}/{number}" for step in (17, 34) for number in range(4)} <= page.chunks().keys()


def test_texts_too_long_for_a_few_steps_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BYTES", {"training": 40_000, "held_out": 40_000, "tokens": 40_000})
    steps = {step: [row("p", noise(10 * step + i, 30_000)) for i in range(4)] for step in range(1, 9)}
    run = run_on_disk(tmp_path / "run", [{"step": 8, "loss": 1.0}], steps)
    page = Page(write_report([run], tmp_path / "report.html", say=print))
    rows = page.chunks()["training/1"]["groups"][0]["rows"]
    assert [(len(one["completion"]), one["cut"]) for one in rows] == [(2_500, True)] * 4
    # Letters drawn at random hardly become smaller: one step fewer than of prose.
    assert len(page.data["runs"][0]["steps"]["training"]) >= budget.LEAST_STEPS - 1


def test_many_runs_share_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"training": 200_000, "held_out": 50_000, "tokens": 50_000}
    monkeypatch.setattr(budget, "BYTES", limits)
    sizes = []
    for count in (2, 10):
        runs = [
            large_run(tmp_path / f"{count}_{i}", steps=30, groups=2, group_size=4, chars=900, text=noise)
            for i in range(count)
        ]
        file = write_report(runs, tmp_path / f"{count}.html", say=print)
        page = Page(file)
        parts = sum(
            len(text) for _, attributes, text in page.contents if "training/" in (attributes.get("data-chunk") or "")
        )
        sizes.append(parts)
        assert all(shown["steps"]["training"] for shown in page.data["runs"])
    assert max(sizes) <= limits["training"]


def test_a_long_run_is_small_and_quick_to_read(tmp_path: Path) -> None:
    """The short form of 200 steps × 64 completions of 1,500 characters, which are to stay under 25 MB: a tenth."""
    run = large_run(tmp_path / "run", steps=20, groups=8, group_size=8, tokens_every=20)
    file = write_report([run], tmp_path / "report.html", say=print)
    assert file.stat().st_size < 2_500_000 + 700_000  # one step has all its tokens, which has a bound of its own
    assert Page(file).data["runs"][0]["steps"]["training"] == list(range(1, 21))
    assert "left_out" not in Page(file).data["runs"][0]["steps"]


def test_a_damaged_file_costs_its_own_steps_only(tmp_path: Path) -> None:
    run = large_run(tmp_path / "run", steps=3, groups=1, group_size=2, chars=50)
    (run / "samples" / "step_000002.parquet").write_bytes(b"PAR1")
    said: list[str] = []
    page = Page(write_report([run], tmp_path / "report.html", say=said.append))
    shown = page.data["runs"][0]["steps"]
    assert shown["training"] == [1, 3]
    assert shown["left_out"] == {"training": 1}
    assert any("without step 2" in text and "step_000002.parquet" in text for text in said)


def test_several_steps_are_read_as_each_alone(tmp_path: Path) -> None:
    """Of merged files, where steps differ in their columns, and of single ones."""
    folder = RunFolder(tmp_path)
    for step in range(1, 204):
        parts = {"reward/late": float(step)} if step > 50 else {}
        rows = [row(f"p{step}", text_of(step * 10 + i, 30), **parts) for i in range(2)]
        folder.sample_files.write(step, [{"step": step, **one} for one in rows])
    assert len(list(folder.samples.iterdir())) == 2 + 3
    asked = [1, 50, 51, 100, 101, 150, 200, 201, 203, 999]

    def select(names: object) -> list[str]:
        return ["prompt_id", "completion", "reward/late"]

    found = dict(folder.sample_files.of_steps(asked, select))
    assert sorted(found) == asked[:-1]
    for step, table in found.items():
        alone = folder.sample_files.of_step(step)
        assert alone is not None
        wanted = [name for name in ("prompt_id", "completion", "reward/late") if name in alone.column_names]
        assert table.select(wanted).to_pylist() == alone.select(wanted).to_pylist()
        assert "reward" not in table.column_names
    assert "reward/late" not in found[50].column_names
