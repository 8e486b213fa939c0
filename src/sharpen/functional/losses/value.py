"""The critic's loss: one term per token, never reduced here."""

from torch import Tensor


def value_loss(
    values_BT: Tensor, targets_BT: Tensor, *, old_values_BT: Tensor | None = None, clip: float | None = None
) -> Tensor:
    r"""Half the squared error of a critic.

    .. math:: L_t = \tfrac12 (V_t - y_t)^2 \quad\text{or}\quad
              \tfrac12 \max\{(V_t - y_t)^2,\ (\mathrm{clip}(V_t, V_{old,t} - c, V_{old,t} + c) - y_t)^2\}

    There is no gradient through the target y, even if it was computed from the same critic's values. The clipped form
    is that of PPO's reference implementation (OpenAI baselines): a value that has moved towards the target beyond the
    interval around its old value gets no gradient.

    Args:
        values_BT: V, with gradient.
        targets_BT: y, such as a λ-return A + V_old or R + γV_old'.
        old_values_BT: V_old, the values at the rollout.
        clip: c, in units of the value.

    Raises:
        ValueError: one of ``old_values_BT`` and ``clip`` is given without the other.
    """
    targets_BT = targets_BT.detach()
    squared_BT = (values_BT - targets_BT).square()
    if (old_values_BT is None) != (clip is None):
        raise ValueError("clipping a value needs both old_values_BT and clip")
    if old_values_BT is not None and clip is not None:
        old_values_BT = old_values_BT.detach()
        clipped_BT = values_BT.clamp(old_values_BT - clip, old_values_BT + clip)
        squared_BT = squared_BT.maximum((clipped_BT - targets_BT).square())
    return 0.5 * squared_BT
