"""What an earlier demo wrote is there until the next one is through, and two at once do not meet."""

from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RunInUseError
from sharpen.pipelines import demo as pipeline
from sharpen.runs.lock import run_lock

PARTS = ("model/config.json", "sft/recipe.yaml", "grpo/recipe.yaml", "plot.png", "summary.json")


def write(folder: Path, content: str, parts: tuple[str, ...] = PARTS) -> None:
    for part in parts:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(content)


def read(folder: Path) -> dict[str, str]:
    return {part: (folder / part).read_text() for part in PARTS if (folder / part).exists()}


def steps(monkeypatch: pytest.MonkeyPatch, content: str, parts: tuple[str, ...], *, killed: bool) -> None:
    """Let the demo write these parts, and then be killed or not."""

    def act(folder: Path, size: Any, out: Any) -> None:
        write(folder, content, parts)
        if killed:
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_demo", act)


def test_an_earlier_demo_stays_until_the_next_is_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "first")
    (tmp_path / "mine").touch()
    whole = dict.fromkeys(PARTS, "first")
    for reached in (0, 2, 4):
        steps(monkeypatch, "second", PARTS[:reached], killed=True)
        with pytest.raises(KeyboardInterrupt):
            pipeline.demo(tmp_path)
        assert read(tmp_path / "earlier") == whole
        assert read(tmp_path) == dict.fromkeys(PARTS[:reached], "second")
    steps(monkeypatch, "third", PARTS, killed=False)
    pipeline.demo(tmp_path)
    assert read(tmp_path) == dict.fromkeys(PARTS, "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "grpo",
        "mine",
        "model",
        "plot.png",
        "sft",
        "summary.json",
    ]


@pytest.mark.parametrize("moved", range(len(PARTS)))
def test_killed_while_an_earlier_demo_is_moved(moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "first")
    rename, seen = Path.rename, []

    def counted(self: Path, target: Path) -> Path:
        if len(seen) == moved:
            raise KeyboardInterrupt
        seen.append(target)
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", counted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.demo(tmp_path)
    assert {**read(tmp_path), **read(tmp_path / "earlier")} == dict.fromkeys(PARTS, "first")
    steps(monkeypatch, "second", PARTS[:1], killed=True)
    with pytest.raises(KeyboardInterrupt):
        pipeline.demo(tmp_path)
    assert read(tmp_path / "earlier") == dict.fromkeys(PARTS, "first")


@pytest.mark.parametrize("held", ["", "grpo"])
def test_a_demo_leaves_alone_what_another_process_is_at(held: str, tmp_path: Path) -> None:
    write(tmp_path, "first")
    with run_lock(tmp_path / held, print), pytest.raises(RunInUseError, match=str(tmp_path / held)):
        pipeline.demo(tmp_path)
    assert read(tmp_path) == dict.fromkeys(PARTS, "first")
