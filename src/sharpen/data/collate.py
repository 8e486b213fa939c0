"""Groups of completions → one padded batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sharpen.types import Batch, Completion, Finish, Group, Score


def collate(groups: Sequence[Group], *, completion_limit: int = 0) -> Batch:
    """The batch of all completions of ``groups``, in order.

    In a group with scores, a completion without one (its reward failed or does not apply) is masked out of the loss and
    has a reward of NaN. A group without scores has rewards of NaN and is not masked.
    """
    completions = [c for group in groups for c in group.completions]
    scores: list[Score | None] = [s for g in groups for s in (g.scores or (None,) * len(g.completions))]
    rewards = [float("nan") if s is None or s.total is None else s.total for s in scores]
    masked = [s is not None and s.total is None for s in scores]
    sizes = torch.tensor([len(group.completions) for group in groups])
    sampled = all(c.sample_logprobs for c in completions)
    stepwise = any(s is not None and s.steps for s in scores)
    weighted_rewards = next((s.weighted_rewards for s in scores if s is not None and s.weighted_rewards), ())
    return Batch(
        prompts=tuple(torch.tensor(group.prompt.token_ids) for group in groups),
        group_E=torch.repeat_interleave(torch.arange(len(groups)), sizes),
        tokens_ET=_padded([torch.tensor(c.token_ids) for c in completions]),
        mask_ET=_padded([torch.tensor(c.loss_mask) & (not m) for c, m in zip(completions, masked, strict=True)]),
        rewards_E=torch.tensor(rewards, dtype=torch.float64),
        truncated_E=torch.tensor([c.finish is Finish.LENGTH for c in completions]),
        completion_limit=completion_limit or max(len(c.token_ids) for c in completions),
        step_rewards_ET=_padded([_steps(c, s) for c, s in zip(completions, scores, strict=True)], float("nan"))
        if stepwise
        else None,
        rewards_EK=torch.tensor([_weighted_rewards(s, len(weighted_rewards)) for s in scores], dtype=torch.float64)
        if weighted_rewards
        else None,
        reward_weights=tuple(weighted_reward.weight for weighted_reward in weighted_rewards),
        lengths_E=torch.tensor([len(c.token_ids) for c in completions]),
        sample_logprobs_ET=_padded([torch.tensor(c.sample_logprobs) for c in completions]) if sampled else None,
    )


def _weighted_rewards(score: Score | None, count: int) -> list[float]:
    """The terms of the total; NaN for one that does not apply, and for all if there is no total."""
    if score is None or score.total is None:
        return [float("nan")] * count
    return [
        float("nan") if weighted_reward.value is None else weighted_reward.value
        for weighted_reward in score.weighted_rewards
    ]


def _steps(completion: Completion, score: Score | None) -> Tensor:
    """The reward of each step at its last token. Several rewards' steps that end at one token add up."""
    values_T = torch.full((len(completion.token_ids),), float("nan"), dtype=torch.float64)
    if score is not None and score.total is not None:
        for step in score.steps:
            before = values_T[step.position]
            values_T[step.position] = step.value if before.isnan() else before + step.value
    return values_T


def _padded(rows: list[Tensor], value: float = 0.0) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)
