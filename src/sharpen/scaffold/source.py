"""Where the rows are: a file, a folder, a data set of the hub or a task, and what of it can be held out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict, load_dataset
from datasets.exceptions import DatasetsError

from sharpen.data.files import READERS, file_type
from sharpen.data.hub import refuse_misspelt_task
from sharpen.data.query import parse_query
from sharpen.data.rows import Rows, read_rows
from sharpen.data.tasks import Task, names_task, resolve_task
from sharpen.data.tasks.registry import GYM_PREFIX
from sharpen.errors import DataError

HELD_OUT_NAMES = ("held_out", "heldout", "validation", "valid", "val", "dev", "eval", "test")
"""Names of held-out splits and files, the first choice first: a test set is best left for the end."""

_TRAIN = re.compile(r"(?<![A-Za-z])(train|training)(?![A-Za-z])")
_PART = re.compile(rf"[-_.]?(?<![A-Za-z])(train|training|data|{'|'.join(HELD_OUT_NAMES)})(?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class Source:
    """Training rows and, where there are any, held-out rows, under the names that a recipe gives them.

    ``name`` is a short name for files. A ``task`` brings its own held-out rows. ``kind`` says how a part could be held
    out where there is none; ``left_out`` is why rows that seem to be held out are not used.
    """

    train: str
    rows: Rows
    name: str
    kind: str
    held_out: str | None = None
    held_out_rows: Rows | None = None
    task: Task | None = None
    left_out: str | None = None


def find_source(data: str) -> Source:
    """The source that a user names on the command line.

    Raises:
        SharpenError: it does not exist, is empty or cannot be read.
    """
    if names_task(data):
        task = resolve_task(data)
        name = re.sub(r"\W+", "_", data.partition("?")[0].removeprefix(GYM_PREFIX)).strip("_")
        return Source(data, task.train_rows(), name, "task", held_out_rows=task.held_out_rows(), task=task)
    path = Path(data).expanduser()
    if file_type(path) is not None or path.is_file():
        rows = read_rows(data)
        sibling = _sibling(Path(data))
        held_out_rows = None if sibling is None else read_rows(sibling)
        return Source(data, rows, _name(path), path.suffix, sibling, held_out_rows)
    return _with_splits(data, path)


def _sibling(path: Path) -> str | None:
    """The file beside ``…train….jsonl`` whose name has a held-out part's name in place of ``train``."""
    if not _TRAIN.search(path.stem):
        return None
    folder = path.expanduser().parent
    for part in HELD_OUT_NAMES:
        stem = _TRAIN.sub(part, path.stem)
        for suffix in dict.fromkeys((path.suffix, *READERS)):
            if (folder / f"{stem}{suffix}").is_file():
                return str(path.with_name(f"{stem}{suffix}"))
    return None


def _name(path: Path) -> str:
    """A short name: the file's, without words such as ``train``, or else its folder's."""
    named = [_PART.sub("", path.stem), path.resolve().parent.name, path.stem]
    return next(filter(None, (re.sub(r"\W+", "_", name).strip("_") for name in named)))


def _with_splits(data: str, path: Path) -> Source:
    """A folder or a data set of the hub."""
    location, query = parse_query(data)
    refuse_misspelt_task(data)
    name = re.sub(r"\W+", "_", path.name.partition("?")[0]).strip("_")
    if "split" in query:
        return Source(data, read_rows(data), name, "hub")
    try:
        loaded = load_dataset(location, **query)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"{data}: neither a data file nor a data set that could be loaded: {error}") from error
    if not isinstance(loaded, DatasetDict):
        return Source(data, read_rows(data), name, "hub")
    train = next((split for split in loaded if str(split).startswith("train")), next(iter(loaded)))
    held_out = next((split for split in HELD_OUT_NAMES if split in loaded and split != train), None)
    train_data = _split(data, str(train))
    held_out_data = None if held_out is None else _split(data, held_out)
    held_out_rows = None if held_out_data is None else read_rows(held_out_data)
    return Source(train_data, read_rows(train_data), name, "hub", held_out_data, held_out_rows)


def _split(data: str, split: str) -> str:
    return f"{data}{'&' if '?' in data else '?'}split={split}"
