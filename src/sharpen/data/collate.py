"""Groups of trajectories → one padded batch."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sharpen.batch import Batch, SampleIndex, Streams
from sharpen.types import NOT_DRAWN, Group, Score, Trajectory


def collate(groups: Sequence[Group], *, completion_limit: int = 0) -> Batch:
    """The batch of all trajectories of ``groups``, in order.

    In a group with scores, a trajectory without one (its reward failed or does not apply) is masked out of the loss and
    has a reward of NaN. A group without scores has rewards of NaN and is not masked. If every token has a
    log-probability with which it was drawn, the batch has them as the stream ``rollout_logprobs``. If steps have
    rewards, it has ``step_rewards``: the reward of each step at its last token, NaN elsewhere.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    scores = [t.score for t in trajectories]
    rewards = [float("nan") if s is None or s.total is None else s.total for s in scores]
    masked = [s is not None and s.total is None for s in scores]
    sizes = torch.tensor([len(group.trajectories) for group in groups])
    drawn = all(len(sample.logprobs) == len(sample.token_ids) for t in trajectories for sample in t.samples)
    weighted_rewards = next((s.weighted_rewards for s in scores if s is not None and s.weighted_rewards), ())
    prefixes, samples = _samples(groups)
    streams: dict[str, Tensor] = {}
    if drawn:
        streams["rollout_logprobs"] = _padded([_logprobs(t) for t in trajectories])
    if any(s is not None and s.steps for s in scores):
        streams["step_rewards"] = _padded([_steps(t) for t in trajectories], float("nan"))
    return Batch(
        prefixes=prefixes,
        samples=samples,
        group_E=torch.repeat_interleave(torch.arange(len(groups)), sizes),
        tokens_ET=_padded([torch.tensor(t.token_ids, dtype=torch.long) for t in trajectories]),
        mask_ET=_padded(
            [torch.tensor(t.loss_mask, dtype=torch.bool) & (not m) for t, m in zip(trajectories, masked, strict=True)]
        ),
        rewards_E=torch.tensor(rewards, dtype=torch.float64),
        truncated_E=torch.tensor([t.truncated for t in trajectories]),
        lengths_E=torch.tensor([len(t.token_ids) for t in trajectories]),
        versions_ET=_padded([_versions(t) for t in trajectories], NOT_DRAWN),
        completion_limit=completion_limit or max(len(t.token_ids) for t in trajectories),
        rewards_EK=torch.tensor([_weighted_rewards(s, len(weighted_rewards)) for s in scores], dtype=torch.float64)
        if weighted_rewards
        else None,
        reward_weights=tuple(weighted_reward.weight for weighted_reward in weighted_rewards),
        streams=Streams(streams),
    )


def _samples(groups: Sequence[Group]) -> tuple[tuple[Tensor, ...], SampleIndex]:
    """The prefixes of all samples, and where the samples are. Those of a group that have the same prefix share it."""
    prefixes: list[Tensor] = []
    trajectory: list[int] = []
    prefix: list[int] = []
    start: list[int] = []
    number = 0
    for group in groups:
        known: dict[tuple[int, ...], int] = {}
        for t in group.trajectories:
            starts = accumulate((len(sample.token_ids) for sample in t.samples), initial=0)
            for sample, column in zip(t.samples, starts, strict=False):
                if sample.prefix_ids not in known:
                    known[sample.prefix_ids] = len(prefixes)
                    prefixes.append(torch.tensor(sample.prefix_ids))
                trajectory.append(number)
                prefix.append(known[sample.prefix_ids])
                start.append(column)
            number += 1
    return tuple(prefixes), SampleIndex(torch.tensor(trajectory), torch.tensor(prefix), torch.tensor(start))


def _versions(trajectory: Trajectory) -> Tensor:
    return torch.tensor(
        [v for s in trajectory.samples for v in s.versions or (NOT_DRAWN,) * len(s.token_ids)], dtype=torch.long
    )


def _logprobs(trajectory: Trajectory) -> Tensor:
    return torch.tensor([logprob for sample in trajectory.samples for logprob in sample.logprobs])


def _weighted_rewards(score: Score | None, count: int) -> list[float]:
    """The terms of the total; NaN for one that does not apply, and for all if there is no total."""
    if score is None or score.total is None:
        return [float("nan")] * count
    return [
        float("nan") if weighted_reward.value is None else weighted_reward.value
        for weighted_reward in score.weighted_rewards
    ]


def _steps(trajectory: Trajectory) -> Tensor:
    """The reward of each step at its last token. Several rewards' steps that end at one token add up."""
    values_T = torch.full((len(trajectory.token_ids),), float("nan"), dtype=torch.float64)
    score = trajectory.score
    if score is not None and score.total is not None:
        start_of = list(accumulate((len(sample.token_ids) for sample in trajectory.samples), initial=0))
        for step in score.steps:
            place = start_of[step.sample] + step.position
            before = values_T[place]
            values_T[place] = step.value if before.isnan() else before + step.value
    return values_T


def _padded(rows: list[Tensor], value: float = 0.0) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)
