"""What is being written when the process ends is not taken for what was to be written."""

from contextlib import suppress
from pathlib import Path

import pytest

from sharpen.system.files import new_folder, replacing, write_text


def test_a_file_is_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with suppress(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_is_whole_or_not_there(tmp_path: Path, empty: bool) -> None:
    path = tmp_path / "deep" / "folder"
    with suppress(KeyboardInterrupt), new_folder(path) as partial:
        partial.mkdir()
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []
    if empty:
        path.mkdir()
    with new_folder(path) as partial:
        partial.mkdir()
        (partial / "part").touch()
        assert not path.exists() or not list(path.iterdir())
    assert [file.name for file in path.iterdir()] == ["part"]
    assert list((tmp_path / "deep").iterdir()) == [path]
    # As any folder of this user: not as a temporary one, which only the user may read.
    assert path.stat().st_mode == (tmp_path / "deep").stat().st_mode
