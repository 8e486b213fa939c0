"""Bounds on rounding errors, which decide which numbers count as equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 8
"""Rounding error in units of ε · |x|. Bounds the difference between two ways of writing a weighted sum of six decimals
and, as measured, between float32 log-probabilities of the same tokens in two packings."""


def rounding(values: Tensor) -> Tensor:
    """Bound on the rounding error of each value: 8 ε |x|, with ε = 2⁻⁵² in float64 and 2⁻²³ in float32."""
    return STEPS * torch.finfo(values.dtype).eps * values.abs()


def rounding_of_sum(total_E: Tensor, parts_EK: Tensor | None, weights: Sequence[float]) -> Tensor:
    """Bound on the rounding error of a weighted sum: the sum over its terms, even if they cancel, [E].

    ``parts_EK`` is None if the total is not a weighted sum; NaN marks a part that does not apply.
    """
    if parts_EK is None:
        return rounding(total_E)
    return rounding(parts_EK * parts_EK.new_tensor(weights)).nansum(dim=1)
