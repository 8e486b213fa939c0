"""Groups of completions → one padded batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sharpen.types import Batch, Completion, Group, Score


def assemble(groups: Sequence[Group], *, scored: bool) -> Batch:
    """The batch of all completions of ``groups``, in order.

    Where ``scored``, a completion without a score (its reward failed or does not apply) is masked: it is not trained
    on, and its reward is NaN.
    """
    completions = [c for group in groups for c in group.completions]
    scores: list[Score | None] = [s for group in groups for s in group.scores] if scored else [None] * len(completions)
    rewards = [float("nan") if s is None or s.total is None else s.total for s in scores]
    masked = [scored and reward != reward for reward in rewards]
    sizes = torch.tensor([len(group.completions) for group in groups])
    drawn = all(c.sample_logprobs for c in completions)
    return Batch(
        prompts=tuple(torch.tensor(group.prompt.token_ids) for group in groups),
        group_B=torch.repeat_interleave(torch.arange(len(groups)), sizes),
        tokens_BT=_padded([torch.tensor(c.token_ids) for c in completions]),
        mask_BT=_padded([_trained(c, m) for c, m in zip(completions, masked, strict=True)]),
        rewards_B=torch.tensor(rewards, dtype=torch.float64),
        sample_logprobs_BT=_padded([torch.tensor(c.sample_logprobs) for c in completions]) if drawn else None,
    )


def _trained(completion: Completion, masked: bool) -> Tensor:
    return torch.tensor(completion.trained) & (not masked)


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
