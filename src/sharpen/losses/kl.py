"""Estimators of KL(π ‖ π_ref) from the log-probabilities of sampled tokens. Per token, in nats."""

from torch import Tensor


def k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    r"""Schulman's k3, the estimator of GRPO (DeepSeekMath, arXiv 2402.03300, eq. 4).

    .. math:: k_3 = r - \log r - 1, \quad r = π_{ref} / π

    Never negative, and unbiased as a value for tokens drawn from π. Its gradient coefficient is 1 − r, so that
    minus β times it adds β(r − 1) to the policy's.
    """
    log_r_BT = ref_logprobs_BT - logprobs_BT
    return log_r_BT.expm1() - log_r_BT
