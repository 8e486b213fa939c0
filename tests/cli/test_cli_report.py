"""``sharpen report``: which runs a path means, where the page goes, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from page_runs import Page, row, run_on_disk
from sharpen.cli.app import app

METRICS = [{"step": 1, "loss": 0.5}]


def report(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["report", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = report(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def names(file: Path) -> list[str]:
    return [run["name"] for run in Page(file).data["runs"]]


def test_a_run_has_its_page_in_its_folder(tmp_path: Path) -> None:
    run = run_on_disk(tmp_path / "run", METRICS, {1: [row()]})
    result = report(run)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{run / 'report.html'}  0.")
    assert names(run / "report.html") == ["run"]
    assert Page(run / "report.html").data["title"] == "run"


def test_a_folder_of_runs_is_shown_together_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    for number, name in enumerate(("second", "first", "third")):
        run = run_on_disk(tmp_path / "work" / name, METRICS)
        os.utime(run / "recipe.yaml", (1000 + (number + 1) % 3, 1000 + (number + 1) % 3))
    (tmp_path / "work" / "model").mkdir()
    (tmp_path / "work" / "notes.txt").touch()
    assert report(tmp_path / "work").exit_code == 0
    assert names(tmp_path / "work" / "report.html") == ["third", "second", "first"]
    page = Page(tmp_path / "work" / "report.html").data
    assert (page["title"], page["seeds"]) == ("work", False)


def test_seeds_are_a_band(tmp_path: Path) -> None:
    for seed in (10, 9):
        run_on_disk(tmp_path / "seeds" / f"seed_{seed}", METRICS)
    (tmp_path / "seeds" / "seed_11").mkdir()  # has not begun
    (tmp_path / "seeds" / "seeds.yaml").write_text("seed: 9\n")
    assert report(tmp_path / "seeds").exit_code == 0
    page = Page(tmp_path / "seeds" / "report.html")
    assert page.data["seeds"]
    assert [run["name"] for run in page.data["runs"]] == ["seed_9", "seed_10"]


def test_several_runs_and_a_file_for_them(tmp_path: Path) -> None:
    a, b = run_on_disk(tmp_path / "a", METRICS), run_on_disk(tmp_path / "b", METRICS)
    assert refused(a, b) == "say where the page of several runs goes: --out report.html"
    assert report(b, a, b, tmp_path / "a" / ".." / "a", "--out", tmp_path / "new" / "both.html").exit_code == 0
    assert names(tmp_path / "new" / "both.html") == ["b", "a"]
    assert "is a folder: --out " in refused(a, "--out", tmp_path)


def test_what_is_no_run_or_has_nothing_yet_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").startswith(f"{tmp_path / 'empty'}: not a run, it has no recipe.yaml")
    assert refused(tmp_path / "nothing").startswith(f"{tmp_path / 'nothing'}: not a run")
    run = run_on_disk(tmp_path / "run")
    assert refused(run) == f"{run}: there are no metrics yet, and so nothing to show"
    (tmp_path / "seeds" / "seed_0").mkdir(parents=True)
    (tmp_path / "seeds" / "seeds.yaml").touch()
    assert refused(tmp_path / "seeds") == f"{tmp_path / 'seeds'}: none of its seeds has begun"


def test_damage_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = run_on_disk(tmp_path / "run", METRICS, {1: [row()]})
    (run / "samples" / "step_000001.parquet").write_bytes(b"PAR1")
    result = report(run)
    assert result.exit_code == 0
    assert "step_000001.parquet: damaged" in " ".join(result.stderr.split())
    assert names(run / "report.html") == ["run"]


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    run = run_on_disk(tmp_path / "run", METRICS)
    monkeypatch.setattr("os.replace", full)
    assert "report.html: the report cannot be written: No space left on device" in refused(run)


def test_it_imports_neither_torch_nor_the_users_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('this ran')\n")
    run = run_on_disk(
        tmp_path / "run", METRICS, recipe={"method": {"name": f"{tmp_path / 'mine.py'}:Own"}, "reward": ["mine:f"]}
    )
    (run / "starts.jsonl").write_text(
        '{"step": 0, "sentence": {"source": "s", "reward": "r", "advantage": "a", "loss": "l"}, "paper": ""}\n'
    )
    program = (
        "import sys; sys.argv = ['sharpen', 'report', sys.argv[1]]\n"
        "from sharpen.cli.app import app\n"
        "app(standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'transformers', 'matplotlib', 'pandas', 'mine'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run)], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
