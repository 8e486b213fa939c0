"""Rows of `datasets` as plain Python values: what a data set's formats and types of its own become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from datasets import Audio, ClassLabel, Dataset, Features, Image, List, Video

BATCH_ROWS = 1000
_MEDIA = {Image: "images", Audio: "sounds", Video: "videos"}


def plain(dataset: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """The data set with plain Python values, and what a user should know about it.

    Formats such as ``torch`` are taken off; a format's choice of columns and a transform stay. Columns of images,
    sounds and videos are left out: a language model is not shown them.
    """
    chosen = dataset.format["columns"]
    if dataset.format["type"] == "custom":
        return dataset, ()
    if dataset.format["type"] is not None:
        dataset = dataset.with_format(None, columns=chosen)
    if len(chosen) < len(dataset.column_names):
        dataset = dataset.with_format(None).select_columns(chosen)
    notes = []
    for column, feature in dataset.features.items():
        for part in _parts(feature):
            media = next((said for kind, said in _MEDIA.items() if isinstance(part, kind)), None)
            if media is not None:
                dataset = dataset.remove_columns(column)
                notes.append(f"`{column}` holds {media}: the model is not shown them, and the rows are read without")
                break
            if isinstance(part, ClassLabel):
                names = ", ".join(f"{number} is {name}" for number, name in enumerate(part.names[:3]))
                more = ", …" if len(part.names) > 3 else ""
                notes.append(f"`{column}` holds the numbers of classes: {names}{more}")
                break
    return dataset, tuple(notes)


class StoredRows(Sequence[dict[str, Any]]):
    """The rows of a data set, read from Arrow when they are asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row: dict[str, Any] = self._dataset[index]
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._dataset.format["type"] == "custom":
            # A transform may tell a batch of one row from a larger one.
            yield from self._dataset
            return
        # Thirty times as fast as row by row.
        for batch in self._dataset.iter(BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))


def columns_of(dataset: Dataset) -> tuple[str, ...]:
    """The columns of its rows, which a transform may choose."""
    return tuple(dataset[0] if dataset.format["type"] == "custom" else dataset.column_names)


def _parts(feature: Any) -> Iterator[Any]:
    """A feature and all that is nested in it."""
    yield feature
    if isinstance(feature, Features | Mapping):
        inner = list(feature.values())
    elif isinstance(feature, list):
        inner = feature
    elif isinstance(feature, List) or hasattr(feature, "feature"):
        inner = [feature.feature]
    else:
        inner = []
    for part in inner:
        yield from _parts(part)
