"""What is being written when the process ends is not taken for what was to be written."""

import errno
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from sharpen.errors import DiskError, ModelError
from sharpen.system.files import named_write_errors, new_folder, replacing, write_text


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "full", "x"),
            "No space left on device; it takes 2.00 GiB, and its disk has 3.0 MiB free",
        ),
        (OSError(errno.EROFS, "read-only"), "Read-only file system"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device; it takes 2.00"),
        # As tokenizers and Arrow raise it.
        (Exception("Permission denied (os error 13)"), "Permission denied"),
        (RuntimeError("[Errno 30] Read-only file system: 'x'"), "Read-only file system"),
    ],
)
def test_a_write_that_failed_is_named(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=2**40, free=3 * 2**20))
    path = tmp_path / "not there" / "model"
    with pytest.raises(DiskError) as named, named_write_errors(path, "the model", 2 * 2**30):
        raise error
    assert str(named.value).startswith(f"{path}: the model cannot be written: {said}")
    assert ("free" in str(named.value)) == ("No space" in said)


def test_what_is_no_failed_write_stays_what_it_is(tmp_path: Path) -> None:
    for error in (ValueError("28 errors"), ModelError("[Errno 28]"), KeyboardInterrupt()):
        with pytest.raises(type(error)), named_write_errors(tmp_path, "the model"):
            raise error
