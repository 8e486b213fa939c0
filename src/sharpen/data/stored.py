"""Rows of `datasets` as plain Python values: what a data set's formats and types of its own become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Audio, ClassLabel, Dataset, Features, Image, List, Video

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
