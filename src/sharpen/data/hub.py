"""Data sets from the hub, and folders in its formats, through `datasets.load_dataset`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    IterableDatasetDict,
    Value,
    load_dataset,
    load_dataset_builder,
)
from datasets.exceptions import DatasetsError
from datasets.packaged_modules.csv.csv import CsvConfig

from sharpen.data.query import parse_query
from sharpen.data.tasks import TASKS
from sharpen.errors import DataError, RecipeError
from sharpen.suggest import did_you_mean, folder_or_hub

QUERY_KEYS = ("name", "split", "revision", "data_dir")


def load(source: str) -> tuple[Dataset, bool]:
    """The dataset that ``path?name=…&split=…`` names; ``path`` is a hub id or a folder.

    True if all its values are texts, as those of a folder of CSV files are. Where the hub has CSV files, `datasets`
    guesses types unless the data set states them.
    """
    path, query = parse_query(source)
    refuse_misspelt_task(source)
    for key in query:
        if key not in QUERY_KEYS:
            raise RecipeError(
                f"{source}: unknown key {key!r}.{did_you_mean(key, QUERY_KEYS)} Known: {', '.join(QUERY_KEYS)}"
            )
    texts = _text_columns(path, query) if Path(path).is_dir() else {}
    try:
        loaded = load_dataset(path, **query, **texts)
    except (OSError, ValueError, DatasetsError) as error:
        if Path(path).is_dir():
            hint = folder_or_hub(path, "dataset")
            raise DataError(
                f"{source}: no dataset could be loaded from this folder: {error}{hint and '.'}{hint}"
            ) from error
        raise DataError(f"{source}: neither a data file nor a dataset that could be loaded: {error}") from error
    return one_split(loaded, source), bool(texts)


def _text_columns(folder: str, query: dict[str, str]) -> dict[str, Any]:
    """What to tell `datasets` so that values of CSV files are read as they stand; empty for other files.

    Raises DataError for two columns of one name, of which it would rename one.
    """
    try:
        config = load_dataset_builder(folder, **{key: value for key, value in query.items() if key != "split"}).config
    # Loading the data itself says what is wrong.
    except (OSError, ValueError, DatasetsError):
        return {}
    if not isinstance(config, CsvConfig) or config.features is not None or not config.data_files:
        return {}
    first = next(file for files in config.data_files.values() for file in files)
    with open(first, encoding="utf-8-sig", newline="", errors="replace") as file:
        names = next(csv.reader(file, delimiter=config.sep), [])
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{first}: its header has {names.count(name)} columns called `{name}`")
    return {"features": Features({name: Value("string") for name in names}), "keep_default_na": False}


def refuse_misspelt_task(source: str) -> None:
    """Raises RecipeError for what is no folder and nearly a task's name; the hub would be asked for half a minute."""
    path = source.partition("?")[0]
    if "/" not in path and not Path(path).exists() and (near := did_you_mean(path, TASKS, cutoff=0.8)):
        raise RecipeError(
            f"{source}: no such task, file or folder.{near} A data set of the hub is written organisation/name"
        )


def one_split(dataset: Any, name: str) -> Dataset:
    """The dataset itself, or the only split of a dictionary of splits."""
    if isinstance(dataset, (IterableDataset, IterableDatasetDict)):
        raise DataError(f"{name}: a streamed dataset has no row numbers; load it without streaming=True")
    if isinstance(dataset, DatasetDict):
        if len(dataset) != 1:
            first = next(iter(dataset))
            raise DataError(
                f"{name}: has the splits {', '.join(dataset)}; choose one: dataset[{first!r}] in Python, "
                f"or ?split={first} after the name"
            )
        return next(iter(dataset.values()))
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{name}: rows must be a list of objects, a path, a hub id or a datasets.Dataset, "
            f"not {type(dataset).__name__}"
        )
    return dataset
