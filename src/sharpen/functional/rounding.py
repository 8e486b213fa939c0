"""How far rounding may have moved a number, and so which numbers count as equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 8
"""Units of ε · |x| that count as rounding. A weighted sum of six decimals is at most so far from another way to write
it, and so are, measured, log-probabilities that float32 gives in two packings of the same tokens."""


def rounding(values: Tensor) -> Tensor:
    """What rounding may be in numbers of this size and type: 8 ε |x|, with ε = 2⁻⁵² in float64 and 2⁻²³ in float32."""
    return STEPS * torch.finfo(values.dtype).eps * values.abs()


def rounding_of_sum(total_B: Tensor, parts_BK: Tensor | None, weights: Sequence[float]) -> Tensor:
    """What rounding may be in a weighted sum: that of all its parts, not only of what is left of them, [B].

    ``parts_BK`` is None where the total is not made of parts; NaN is a part that does not apply.
    """
    if parts_BK is None:
        return rounding(total_B)
    return rounding(parts_BK * parts_BK.new_tensor(weights)).nansum(dim=1)
