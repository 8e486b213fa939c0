"""Which version of the policy drew a batch, and whether it may be trained on."""

from __future__ import annotations

from torch import Tensor

from sharpen.batch import Batch
from sharpen.errors import StaleError
from sharpen.methods import Method
from sharpen.training.metrics import Metrics
from sharpen.types import NOT_DRAWN


def on_policy(batch: Batch, version: int) -> bool:
    """Whether this version drew every token that was drawn."""
    return not _stale_ET(batch, version).any()


def staleness(batch: Batch, version: int) -> Metrics:
    """By how many versions the policies that drew the tokens are behind; nothing for an on-policy batch."""
    if on_policy(batch, version):
        return {}
    behind_N = (version - batch.versions_ET)[batch.versions_ET != NOT_DRAWN].double()
    return {"staleness/mean": behind_N.mean().item(), "staleness/max": behind_N.max().item()}


def refuse_stale(batch: Batch, version: int, method: Method) -> None:
    """Raises StaleError if another version drew tokens and the method does not correct for that."""
    if method.corrects_stale or on_policy(batch, version):
        return
    oldest = int(batch.versions_ET[_stale_ET(batch, version)].min())
    raise StaleError(
        f"version {oldest} of the policy drew tokens that version {version} would be trained on as if it had drawn "
        f"them, and method {method.name} does not correct for that: set method.tis_cap (2, say), or method.old: rollout"
    )


def _stale_ET(batch: Batch, version: int) -> Tensor:
    return (batch.versions_ET != NOT_DRAWN) & (batch.versions_ET != version)
