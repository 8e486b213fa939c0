"""Fingerprints that tell a resumed run whether its data and its reference are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sharpen.errors import DataError, ModelError
from sharpen.models.policy import Policy
from sharpen.types import Group, Prompt


def identity(prompts: Sequence[Prompt], groups: Sequence[Group], reference: Policy | None) -> dict[str, Any]:
    """What a checkpoint remembers of the data and of the reference, as hashes."""
    result = {"data": _of_data(prompts, groups)}
    if reference is not None:
        result["reference"] = _of_weights(reference)
    return result


def check_identity(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises DataError or ModelError where a run would go on with something else than it began with."""
    if saved["data"] != now["data"]:
        raise DataError("the training data is not what this run was started with; a resumed run needs the same")
    if saved.get("reference") != now.get("reference"):
        raise ModelError("the reference model is not the one that this run was started with")


def _of_data(prompts: Sequence[Prompt], groups: Sequence[Group]) -> str:
    digest = hashlib.sha256()
    for ids in (
        *(p.token_ids for p in prompts),
        *(g.prompt.token_ids + c.token_ids for g in groups for c in g.completions),
    ):
        digest.update(np.asarray((len(ids), *ids), dtype=np.int64).tobytes())
    for score in (s for g in groups for s in g.scores):
        digest.update(repr((score.total, [(step.position, step.value) for step in score.steps])).encode())
    return digest.hexdigest()


def _of_weights(policy: Policy) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
