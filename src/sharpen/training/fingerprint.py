"""Fingerprints by which a resumed run checks that its data, reference and frozen weights are unchanged."""

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
from sharpen.errors import CheckpointError, DataError, ModelError
from sharpen.methods import Role
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.weight_files import adapter_sha256, model_sha256
from sharpen.types import Group, Prompt

HASH = "files_sha256"
_OLD = "an earlier version of sharpen started this run and hashed its models in another way: it cannot be resumed"


@dataclass(frozen=True, slots=True)
class ColumnHashes:
    """Hashes of all values of some columns, by column. ``rows`` is the name of the rows in messages."""

    rows: str
    sha256: Mapping[str, str]


def column_hashes(rows: Rows, columns: Sequence[str]) -> dict[str, str]:
    """The hash of all values of each column, in the order of the rows."""
    digests = {column: hashlib.sha256() for column in columns}
    for row in rows:
        for column, digest in digests.items():
            digest.update(_text(row[column]).encode() if column in row else b"-")
            digest.update(b"\n")
    return {column: digest.hexdigest() for column, digest in digests.items()}


def fingerprint(
    prompts: Sequence[Prompt],
    groups: Sequence[Group],
    reference: Policy | None,
    models: Mapping[Role, Model],
    frozen: Mapping[str, Model],
    columns: Mapping[str, ColumnHashes] | None = None,
) -> dict[str, Any]:
    """Hashes of the data, of the reference, of frozen models and of the base models of adapters, for a checkpoint.

    Of the models, the files that they were loaded from are hashed. ``columns`` are those that are read beside prompts
    and completions, by the setting that gives their rows.
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
    return result


def check_fingerprint(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises DataError or ModelError if a run would resume with other data or models than it was started with.

    The columns of a run that an earlier version started are not checked: there is nothing to compare them with.
    """
    _check_columns(saved.get("columns", {}), now.get("columns", {}))
    if saved["data"] != now["data"]:
        raise DataError("the training data is not what this run was started with; a resumed run needs the same")
    before, after = saved.get("bases", {}), now.get("bases", {})
    for role in before | after:
        if role not in before or role not in after:
            raise ModelError(
                f"model.lora is not what this run was started with: it decides which weights of the {role} are trained"
            )
        if HASH not in before[role]:
            raise CheckpointError(_OLD)
        if before[role][HASH] != after[role][HASH]:
            raise ModelError(
                f"{after[role]['path']}: not the base model that this run was started with; the adapter of its {role} "
                f"belongs to {before[role]['path']} as it was then"
            )
    if isinstance(saved.get("reference"), str):
        raise CheckpointError(_OLD)
    if saved.get("reference") != now.get("reference"):
        raise ModelError("the reference model is not the one that this run was started with")
    for name, model in now.get("frozen", {}).items():
        if saved.get("frozen", {}).get(name) != model:
            raise ModelError(f"the {name} is not the model that this run was started with")


def check_models(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """`check_fingerprint` for a model that is measured, not trained: checks only the models in ``now``."""
    bases = {role: base for role, base in saved.get("bases", {}).items() if role in now.get("bases", {})}
    part = {"data": now["data"], "bases": bases, "frozen": saved.get("frozen", {})}
    if "reference" in now:
        part["reference"] = saved.get("reference")
    check_fingerprint(part, now)


def _check_columns(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for setting, rows in {**saved, **now}.items():
        before, after = saved.get(setting, {}).get("sha256", {}), now.get(setting, {}).get("sha256", {})
        lost = [name for name in before if name not in after]
        changed = lost or [name for name, sha256 in after.items() if before.get(name, sha256) != sha256]
        if changed:
            noun = "training data is" if setting.endswith("train") else f"`{setting}` is"
            named = " and ".join(f"`{name}`" for name in changed)
            raise DataError(
                f"the {noun} not what this run was started with: {rows['rows']} has "
                f"{'no longer' if lost else 'other values in'} {'columns' if changed[1:] else 'column'} {named}; a "
                "resumed run needs the same"
            )


def _text(value: Any) -> str:
    """A text that is the same for equal values, whatever process writes it."""
    try:
        return json.dumps(value, sort_keys=True, default=_plain)
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
