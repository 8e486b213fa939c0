"""The critic's loss: one term per token, never reduced here."""

from torch import Tensor


def value_loss(
    values_ET: Tensor, targets_ET: Tensor, *, old_values_ET: Tensor | None = None, clip: float | None = None
) -> Tensor:
    r"""Half the squared error of a critic.

    .. math:: L_t = \tfrac12 (V_t - y_t)^2 \quad\text{or}\quad
              \tfrac12 \max\{(V_t - y_t)^2,\ (\mathrm{clip}(V_t, V_{old,t} - c, V_{old,t} + c) - y_t)^2\}

    There is no gradient through the target y, even if it was computed from the same critic's values. The clipped form
    is that of PPO's reference implementation (OpenAI baselines): a value that has moved towards the target beyond the
    interval around its old value gets no gradient.

    Args:
        values_ET: V, with gradient.
        targets_ET: y, such as a λ-return A + V_old or R + γV_old'.
        old_values_ET: V_old, the values at the start of the step.
        clip: c, in units of the value.

    Raises:
        ValueError: one of ``old_values_ET`` and ``clip`` is given without the other.
    """
    targets_ET = targets_ET.detach()
    squared_ET = (values_ET - targets_ET).square()
    if (old_values_ET is None) != (clip is None):
        raise ValueError("clipping a value needs both old_values_ET and clip")
    if old_values_ET is not None and clip is not None:
        old_values_ET = old_values_ET.detach()
        clipped_ET = values_ET.clamp(old_values_ET - clip, old_values_ET + clip)
        squared_ET = squared_ET.maximum((clipped_ET - targets_ET).square())
    return 0.5 * squared_ET
