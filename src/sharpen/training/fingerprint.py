"""Fingerprints by which a resumed run checks that its data, reference and frozen weights are unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sharpen.errors import CheckpointError, DataError, ModelError
from sharpen.methods import Role
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.weight_files import adapter_sha256, model_sha256
from sharpen.types import Group, Prompt

HASH = "files_sha256"
_OLD = "an earlier version of sharpen started this run and hashed its models in another way: it cannot be resumed"


def fingerprint(
    prompts: Sequence[Prompt],
    groups: Sequence[Group],
    reference: Policy | None,
    models: Mapping[Role, Model],
    frozen: Mapping[str, Model],
) -> dict[str, Any]:
    """Hashes of the data, of the reference, of frozen models and of the base models of adapters, for a checkpoint.

    Of the models, the files that they were loaded from are hashed.
    """
    result: dict[str, Any] = {"data": _of_data(prompts, groups)}
    if reference is not None:
        result["reference"] = _of_reference(reference)
    hashes: dict[str, str] = {}
    for role, model in models.items():
        if model.adapter is not None:
            base = model.adapter.base
            hashes[base] = hashes.get(base) or model_sha256(base)
            result.setdefault("bases", {})[role] = {"path": base, HASH: hashes[base]}
    if frozen:
        result["frozen"] = {name: {HASH: model_sha256(model.source)} for name, model in frozen.items()}
    return result


def check_fingerprint(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises DataError or ModelError if a run would resume with other data or models than it was started with."""
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


def _of_data(prompts: Sequence[Prompt], groups: Sequence[Group]) -> str:
    digest = hashlib.sha256()
    for ids in (
        *(p.token_ids for p in prompts),
        *(g.prompt.token_ids + c.token_ids for g in groups for c in g.trajectories),
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
