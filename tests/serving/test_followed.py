"""A run is followed by what is new in it: appended, half written, cut back, replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sharpen.report.page.series import series_data
from sharpen.runs.folder import RunFolder
from sharpen.runs.metrics_file import MetricsFile
from sharpen.serving import followed as followed_module
from sharpen.serving import tail as tail_module
from sharpen.serving.followed import Followed, Place
from sharpen.serving.tail import Tail


def test_a_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    tail = Tail(file)
    assert (tail.news().lines, tail.news().again) == ([], False)
    file.write_bytes(b"one\ntwo\nthr")
    assert tail.news().lines == [b"one", b"two"]
    assert tail.news().lines == []
    with file.open("ab") as stream:
        stream.write(b"ee\n")
    assert (news := tail.news()).lines == [b"three"]
    assert not news.again


def test_a_tail_notices_a_file_that_is_another(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\n")
    tail = Tail(file)
    tail.news()
    file.write_bytes(b"one\n")  # cut
    assert (news := tail.news()).lines == [b"one"]
    assert news.again
    (tmp_path / "new").write_bytes(b"one\nTWO\nthree\n")
    (tmp_path / "new").replace(file)  # as `cut_back` writes it
    assert (news := tail.news()).lines == [b"one", b"TWO", b"three"]
    assert news.again
    file.write_bytes(b"ONE\nTWO\nthree\nfour\n")  # in its place, longer, and another
    assert (news := tail.news()).lines == [b"ONE", b"TWO", b"three", b"four"]
    assert news.again
    file.unlink()
    assert (news := tail.news()).lines == []
    assert news.again


def test_a_line_without_an_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "MOST_LINE_BYTES", 1000)
    monkeypatch.setattr(tail_module, "BLOCK_BYTES", 100)
    file = tmp_path / "lines"
    file.write_bytes(b"one\n" + b"x" * 5000 + b"\ntwo\n")
    assert Tail(file).news().lines == [b"one", b"two"]


def row(step: int, **values: float) -> dict[str, float]:
    return {
        "step": step,
        "reward/mean": step / 8,
        "time/step_s": 2.0,
        "time/rollout_s": 1.0,
        "tokens_per_s/rollout": 50.0,
        **values,
    }


class Page:
    """What the page does with the events, as data.js does it."""

    def __init__(self, run: Followed) -> None:
        self.run, self.place = run, Place()
        self.series: dict[str, Any] = {}
        self.catalogue: dict[str, Any] = {}
        self.pages: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def listen(self) -> list[int]:
        """The steps of the rows that came."""
        came: list[int] = []
        for event in self.run.events("an-id", self.place):
            assert event.data["id"] == "an-id"
            if event.name == "page":
                self.pages.append(event.data)
            elif event.name == "problem":
                self.problems.append(event.data["text"])
            else:
                came += event.data["series"]["step"]
                self.take(event.data)
        return came

    def take(self, data: Mapping[str, Any]) -> None:
        self.catalogue |= data["catalogue"]
        new = data["series"]
        if data.get("all"):
            self.series = new
            return
        before = len(self.series["step"])
        for axis in ("step", "time_s", "tokens"):
            self.series[axis] = [*self.series[axis], *new[axis]]
        for name in {**self.series["values"], **new["values"]}:
            old = self.series["values"].get(name, [None] * before)
            self.series["values"][name] = [*old, *new["values"].get(name, [None] * len(new["step"]))]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(followed_module, "FACTS_EVERY_S", 0.0)
    folder = RunFolder(tmp_path / "run")
    folder.initialise("method: {name: grpo}\nmodel: {path: m}\ntraining: {steps: 20}\n")
    return folder


def append(run: RunFolder, rows: Sequence[Mapping[str, float]]) -> None:
    for one in rows:
        run.append_metrics(one)


def test_new_rows_make_the_series_that_all_rows_make(run: RunFolder) -> None:
    append(run, [row(1), row(2)])
    page = Page(Followed(run.path))
    assert page.listen() == [1, 2]
    assert page.listen() == []
    append(run, [row(3, loss=1.5)])
    assert page.listen() == [3]
    append(run, [row(4), row(5, entropy=0.25)])
    with run.metrics.open("ab") as stream:
        stream.write(b'{"step": 6, "rewa')  # half written
    assert page.listen() == [4, 5]
    assert page.series == series_data(run.read_metrics(say=lambda text: None))
    assert page.series["time_s"] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert page.series["tokens"] == [50, 100, 150, 200, 250]
    assert page.series["values"]["entropy"] == [None, None, None, None, 0.25]
    assert page.catalogue.keys() == page.series["values"].keys()
    assert page.catalogue["entropy"]["unit"] == "nats/token"


def test_a_resumed_run_cuts_back_what_it_does_again(run: RunFolder) -> None:
    append(run, [row(step) for step in range(1, 6)])
    page, other = Page(followed := Followed(run.path)), Page(followed)
    page.listen()
    MetricsFile(run.metrics).cut_back(3)
    append(run, [row(4, loss=9.0)])
    assert page.listen() == [1, 2, 3, 4]
    assert page.series == series_data(run.read_metrics())
    append(run, [row(5)])
    assert page.listen() == [5]
    # One that comes later, and shares what was read.
    assert other.listen() == [1, 2, 3, 4, 5]
    assert page.series == other.series == series_data(run.read_metrics())


def test_a_step_that_is_written_again_replaces_the_first(run: RunFolder) -> None:
    append(run, [row(1), row(2), row(3)])
    page = Page(Followed(run.path))
    page.listen()
    append(run, [row(2, loss=4.0)])
    assert page.listen() == [1, 2, 3]
    assert page.series["values"]["loss"] == [None, 4.0, None]


def test_a_page_that_fell_behind_gets_all_rows(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_module, "KEPT_PARTS", 3)
    append(run, [row(1)])
    page, quick = Page(followed := Followed(run.path)), None
    page.listen()
    quick = Page(followed)
    quick.listen()
    for step in range(2, 9):
        append(run, [row(step)])
        assert quick.listen() == [step]
    assert page.listen() == [*range(1, 9)]
    assert page.series == quick.series


def test_findings_and_steps_come_with_new_rows_and_not_without(run: RunFolder) -> None:
    append(run, [row(1)])
    page = Page(Followed(run.path))
    page.listen()
    assert [one["glance"]["step"] for one in page.pages] == [1]
    page.listen()
    assert len(page.pages) == 1
    with run.metrics.open("ab") as stream:
        stream.write(b"not a row\n" + json.dumps(row(2)).encode() + b"\n" + json.dumps(row(4)).encode() + b"\n")
    page.listen()
    assert page.pages[-1]["glance"]["step"] == 4
    damage = next(one for one in page.pages[-1]["findings"] if one["id"] == "metrics_damaged")
    assert "1 damaged line" in damage["evidence"]
    assert "step 3" in damage["evidence"]
    assert "name" not in page.pages[-1]


def test_a_recipe_that_is_damaged_is_said_and_the_rows_come_all_the_same(run: RunFolder) -> None:
    run.recipe.write_text("a: &a [1]\nb: *a\n")
    append(run, [row(1)])
    page = Page(Followed(run.path))
    assert page.listen() == [1]
    assert "alias" in page.problems[0]
    assert page.listen() == []
    assert len(page.problems) == 1


def test_following_a_long_run_reads_only_what_is_new(run: RunFolder) -> None:
    """After the first look at 10,000 steps, a step costs its line, and some bytes to see that the file is the same."""
    with run.metrics.open("wb") as stream:
        for step in range(1, 10_001):
            stream.write(json.dumps(row(step)).encode() + b"\n")
    size = run.metrics.stat().st_size
    page = Page(followed := Followed(run.path))
    assert page.listen()[-1] == 10_000
    assert followed.tail.bytes_read == size
    for step in range(10_001, 10_006):
        append(run, [row(step)])
        assert page.listen() == [step]
        page.listen()  # without news not even that
    new = run.metrics.stat().st_size - size
    assert followed.tail.bytes_read == size + new + 5 * tail_module.KNOWN_BYTES
    assert new < 1_000 < size / 1_000
