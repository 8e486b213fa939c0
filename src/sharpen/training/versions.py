"""Which version of the policy drew a batch, and whether it may be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sharpen.batch import Batch
from sharpen.errors import StaleError
from sharpen.methods import Method
from sharpen.training.metrics import Metrics
from sharpen.types import NOT_DRAWN, Group


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


def refuse_without_logprobs(batch: Batch, groups: Sequence[Group], method: Method) -> None:
    """Raises StaleError if the method needs the rollout's log-probabilities, and a sample of ``groups`` lacks them."""
    wanted = method.streams.union(*(objective.streams for objective in method.objectives()))
    if "rollout_logprobs" in batch or (method.old_from != "rollout" and "rollout_logprobs" not in wanted):
        return
    prompt_id, draw_id = next(
        (group.prompt.id, trajectory.draw_id)
        for group in groups
        for trajectory in group.trajectories
        if any(len(sample.logprobs) != len(sample.token_ids) for sample in trajectory.samples)
    )
    raise StaleError(
        f"prompt {prompt_id}, draw {draw_id}: some tokens lack the log-probability with which they were drawn, and "
        f"method {method.name} divides by it (method.tis_cap or method.old: rollout): the engine must return one for "
        "each token that it draws"
    )


def _stale_ET(batch: Batch, version: int) -> Tensor:
    return (batch.versions_ET != NOT_DRAWN) & (batch.versions_ET != version)
