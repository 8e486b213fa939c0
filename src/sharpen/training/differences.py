"""What differs between the fingerprint of a checkpoint and that of the run that goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sharpen.errors import CheckpointError, ModelError
from sharpen.training.fingerprint import HASH

_OLD = "an earlier version of sharpen started this run and hashed its models in another way: it cannot be resumed"

Entries = Mapping[str, tuple[Any, Any]]
"""Entries of two fingerprints by their path, such as ``columns/data.train/answer``: before, and now."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not what a run was started with, in words, and the entries of the fingerprints that say so.

    ``kind``: it is only said, the user is asked to accept it, or it cannot work.
    """

    what: str
    entries: Entries = field(default_factory=dict)
    kind: Literal["said", "asked", "impossible"] = "asked"


def data_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Differences of the rows, by column, and of the tokens made of them.

    What an earlier version did not hash is not compared.
    """
    before, after = saved.get("columns", {}), now.get("columns", {})
    tokens = {} if saved["data"] == now["data"] else {"data": (saved["data"], now["data"])}
    said = False
    for setting in [name for name in after if name in before]:
        difference = _rows_differ(setting, before[setting], after[setting])
        if difference is None:
            continue
        if tokens and not said and setting.endswith(("train", "mixed")):
            said, difference = True, replace(difference, entries={**difference.entries, **tokens})
        yield difference
    if tokens and not said:
        known = bool(after) and all("count" in before.get(setting, {}) for setting in after)
        other = "the same rows give other tokens, by another tokenizer, chat template or setting of `data`"
        yield Difference(f"{_TRAINING} {other if known else 'other rows, or other tokens of them'}", tokens)


def model_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Differences of the models that a run reads and does not train.

    Raises CheckpointError for hashes of an earlier version, which are made otherwise.
    """
    before, after = saved.get("bases", {}), now.get("bases", {})
    for role in before | after:
        if role not in before or role not in after:
            what = f"`model.lora` is not what it was: it decides which weights of the {role} are trained"
            yield Difference(what, kind="impossible")
        elif HASH not in before[role]:
            raise CheckpointError(_OLD)
        elif before[role][HASH] != after[role][HASH]:
            what = (
                f"{after[role]['path']}: not the base model of before; the adapter of the {role} belongs to "
                f"{before[role]['path']} as it was then"
            )
            yield Difference(what, kind="impossible")
    if isinstance(saved.get("reference"), str):
        raise CheckpointError(_OLD)
    if "reference" in now and saved.get("reference") != now["reference"]:
        yield Difference(
            "the reference model has other weights", {"reference": (saved.get("reference"), now["reference"])}
        )
    for name, model in now.get("frozen", {}).items():
        known = saved.get("frozen", {}).get(name)
        if known != model:
            yield Difference(f"the {name} has other weights", {f"frozen/{name}": (known, model)})
    for name, model in now.get("scorers", {}).items():
        known = saved.get("scorers", {}).get(name, model)
        if known[HASH] != model[HASH]:
            place = model["path"] if model["path"] == known["path"] else f"{model['path']}, before {known['path']}"
            what = f"the model of reward `{name}` has other weights ({place})"
            yield Difference(what, {f"scorers/{name}": (known[HASH], model[HASH])})


def check_models(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ModelError if a model that is measured comes with another base, reference or frozen model than those that
    the checkpoint was trained with; checks only the models in ``now``."""
    bases = {role: base for role, base in saved.get("bases", {}).items() if role in now.get("bases", {})}
    for difference in model_differences({**saved, "bases": bases}, now):
        raise ModelError(f"not what this run was started with: {difference.what}")


_TRAINING = "the training data:"


def _rows_differ(setting: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> Difference | None:
    before, after = saved["sha256"], now["sha256"]
    entries: dict[str, tuple[Any, Any]] = {}
    for name in {**before, **after}:
        # An earlier version did not hash every column.
        unknown = name not in before and "count" not in saved
        if not unknown and before.get(name) != after.get(name):
            entries[f"columns/{setting}/{name}"] = (before.get(name), after.get(name))
    if not entries:
        return None
    noun = _TRAINING if setting.endswith("train") else f"`{setting}`:"
    count = saved.get("count", now["count"])
    if count != now["count"]:
        return Difference(f"{noun} {now['rows']} has {now['count']} rows, {count} before", entries)
    lost = [name for name in before if name not in after]
    new = [name for name in after if name not in before and f"columns/{setting}/{name}" in entries]
    changed = lost or new or [name for name in before if before[name] != after[name]]
    verb = "no longer has" if lost else "has the new" if new else "has other values in"
    named = " and ".join(f"`{name}`" for name in changed)
    return Difference(f"{noun} {now['rows']} {verb} {'columns' if changed[1:] else 'column'} {named}", entries)
