"""Fingerprints of data and models, by which a resumed run notices what has changed since its checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from sharpen.data.rows import Rows
from sharpen.methods import Role
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.weight_files import adapter_sha256, model_sha256
from sharpen.types import Group, Prompt

HASH = "files_sha256"


@dataclass(frozen=True, slots=True)
class ColumnHashes:
    """Hashes of all values of some columns, by column. ``rows`` is the name of the rows in messages, ``count`` their
    number."""

    rows: str
    sha256: Mapping[str, str]
    count: int


def column_hashes(rows: Rows, columns: Sequence[str]) -> ColumnHashes:
    """The hash of all values of each column, in the order of the rows, which are read once."""
    digests = {column: hashlib.sha256() for column in columns}
    count = 0
    for row in rows:
        count += 1
        for column, digest in digests.items():
            digest.update((f"{_text(row[column])}\n" if column in row else "-\n").encode())
    return ColumnHashes(rows.name, {column: digest.hexdigest() for column, digest in digests.items()}, count)


def fingerprint(
    prompts: Sequence[Prompt],
    groups: Sequence[Group],
    reference: Policy | None,
    models: Mapping[Role, Model],
    frozen: Mapping[str, Model],
    columns: Mapping[str, ColumnHashes] | None = None,
    scorers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Hashes of the data, of the reference, of frozen models, of the base models of adapters and of the models of
    rewards, for a checkpoint.

    Of the models, the files that they were loaded from are hashed. ``columns`` are those that are read, by the setting
    that gives their rows; ``scorers`` are the places of the rewards' models, by the rewards' names.
    """
    result: dict[str, Any] = {"data": _of_data(prompts, groups)}
    if columns:
        result["columns"] = {setting: asdict(hashes) for setting, hashes in columns.items()}
    if reference is not None:
        result["reference"] = _of_reference(reference)
    for role, model in models.items():
        if model.adapter is not None:
            base = {"path": model.adapter.base, HASH: model.adapter.base_sha256}
            result.setdefault("bases", {})[role] = base
    if frozen:
        result["frozen"] = {name: {HASH: model_sha256(model.source)} for name, model in frozen.items()}
    if scorers is not None:
        result["scorers"] = {name: {"path": path, HASH: model_sha256(path)} for name, path in scorers.items()}
    return result


def _text(value: Any) -> str:
    """A text that is the same for equal values, whatever process writes it."""
    try:
        return _SORTED.encode(value)
    except TypeError:  # keys of several types have no order
        return json.dumps(value, default=_plain, skipkeys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(map(_text, value))
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if hasattr(value, "tolist"):
        return value.tolist()
    # What an object of any other class is printed as may have its place in memory in it.
    known = isinstance(value, date | time | timedelta | Decimal)
    return str(value) if known else type(value).__qualname__


_SORTED = json.JSONEncoder(sort_keys=True, default=_plain)


def _of_data(prompts: Sequence[Prompt], groups: Sequence[Group]) -> str:
    digest = hashlib.sha256()
    for ids in (
        *(p.token_ids for p in prompts),
        *(g.prompt.token_ids + c.token_ids for g in groups for c in g.trajectories),
        *(s.prefix_ids for g in groups for c in g.trajectories for s in c.samples[1:]),
    ):
        digest.update(np.asarray((len(ids), *ids), dtype=np.int64).tobytes())
    for score in (s for g in groups for s in g.scores):
        digest.update(repr((score.total, [(step.position, step.value) for step in score.steps])).encode())
    return digest.hexdigest()


def _of_reference(reference: Policy) -> dict[str, str] | None:
    """Of the adapter only, if it shares a base model, which has a fingerprint of its own."""
    if not reference.shares_root:
        return {HASH: model_sha256(reference.source)}
    return None if reference.adapter is None else {HASH: adapter_sha256(reference.source)}
