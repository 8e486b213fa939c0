"""One process at a time writes a run: it holds a kernel lock on the file ``lock``, released when the process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sharpen.errors import DiskError, RecipeError, RunInUseError
from sharpen.system.files import why_unwritten

WAIT_S = 2.0
"""A holder that was just killed keeps the lock until the system has freed its memory."""
_POLL_S = 0.05

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_held: set[int] = set()


def _close_in_child() -> None:
    # A forked process shares the lock and would keep it after the run's process has ended.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def run_lock(folder: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Lock a run's folder, made if missing, against other threads and processes.

    Files and folders made for the lock are removed at the end if no run was begun. On a file system without locks, this
    tells ``say``, locks nothing and yields False.

    Raises RunInUseError, naming the holder, if the folder is locked, RecipeError if a file is in its way,
    and DiskError if it cannot be written.
    """
    made = _missing(folder)
    file = folder / "lock"
    try:
        descriptor, locked = _locked(file, say)
    except RunInUseError:
        raise
    except BaseException:
        _remove(made)
        raise
    _held.add(descriptor)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds")}
        try:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        except OSError as error:
            raise _unwritable(file, error) from error
        yield locked
    finally:
        if descriptor in _held:
            if (folder / "recipe.yaml").exists():
                os.truncate(descriptor, 0)
            else:
                file.unlink(missing_ok=True)
                _remove(made)
            _held.remove(descriptor)
            os.close(descriptor)


@contextmanager
def lock_without_trace(folder: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """`run_lock` for what writes nothing: at the end, the folder is as it was."""
    there = (folder / "lock").exists()
    with run_lock(folder, say) as locked:
        try:
            yield locked
        finally:
            if not there:
                (folder / "lock").unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Whether a process is writing the run in this folder just now; False where the file system has no locks."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, and for an instant: a run that starts meanwhile waits longer than that for its own.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _missing(folder: Path) -> list[Path]:
    """The folders that have to be made, the innermost first. Raises RecipeError if a name of the path is a file's."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise RecipeError(f"run: {folder} cannot be made: {path} is a file")
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove(made: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):  # something else is in it, or it was not made
        for path in made:
            path.rmdir()


def _opened(file: Path) -> int:
    """Raises FileNotFoundError if another process has just removed the folder."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> DiskError:
    path = Path(error.filename or file)
    return DiskError(f"run: {path} cannot be written: {why_unwritten(path, error.errno or 0)}")


def _locked(file: Path, say: Callable[[str], None]) -> tuple[int, bool]:
    """An open descriptor of the file, and whether it could be locked."""
    patience = time.monotonic() + WAIT_S
    while True:
        try:
            descriptor = _opened(file)
        except FileNotFoundError as error:
            if time.monotonic() > patience:
                raise _unwritable(file, error) from error
            time.sleep(_POLL_S)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                refusal = _refusal(file.parent, os.pread(descriptor, 1000, 0))
                os.close(descriptor)
                raise refusal from None
            time.sleep(_POLL_S)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            say(f"{file}: this file system has no locks ({error.strerror}); make sure that only one process uses it")
            return descriptor, False
        else:
            if _is_still(file, descriptor):
                return descriptor, True
        os.close(descriptor)


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether the opened file still has its name: its last holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _refusal(folder: Path, content: bytes) -> RunInUseError:
    try:
        holder = json.loads(content)
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        # Edited by hand, or not written yet.
        who = "another process"
    return RunInUseError(f"{folder} is in use by {who}: wait until it ends, or stop it")
