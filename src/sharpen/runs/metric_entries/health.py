"""Whether it is healthy: the policy, the sampler and the optimizer."""

from __future__ import annotations

from sharpen.runs.metric_entries.entry import SHARE, Entry

HEALTH: dict[str, tuple[Entry, ...]] = {
    "Policy": (
        Entry(
            "kl",
            "KL to the reference",
            "nats/token",
            "none",
            "KL(π ‖ π_ref), estimated by k3, or exact if `kl.estimator` is; only with a reference",
            "rises slowly from 0; values in the thousands come from "
            "[a single token far below the reference](#a-token-far-from-where-it-was)",
        ),
        Entry(
            "entropy",
            "Entropy",
            "nats/token",
            "none",
            "mean entropy of the next-token distribution",
            "falls slowly; near 0 the model no longer explores",
        ),
        Entry(
            "logprob",
            "Log-probability",
            "nats/token",
            "none",
            "mean log-probability of the trained tokens",
            "rises in SFT",
        ),
        Entry(
            "clip_fraction",
            "Clip fraction",
            SHARE,
            "none",
            "tokens whose gradient is clipped away",
            "0 with a single optimizer step per rollout, else up to a few percent",
        ),
        Entry("ratio/mean", "Ratio, mean", "", "none", "mean of π/π_old", "1", panel="Ratio π/π_old"),
        Entry(
            "ratio/p99.9",
            "Ratio, 99.9th percentile",
            "",
            "none",
            "99.9th percentile of π/π_old",
            "1 with a single optimizer step per rollout, else slightly above",
            panel="Ratio π/π_old",
        ),
        Entry(
            "advantage/mean",
            "Advantage, mean",
            "",
            "none",
            "mean advantage of the trained tokens",
            "near 0",
            panel="Advantage",
        ),
        Entry(
            "advantage/abs",
            "Advantage, mean size",
            "",
            "none",
            "mean of the absolute value of the advantage of the trained tokens",
            panel="Advantage",
        ),
        Entry(
            "kl_old",
            "KL from the step's start",
            "nats/token",
            "none",
            "k3 estimate of KL(π_old ‖ π) after the step's last update, where π_old is the policy at its start; only "
            "if PPO's penalty is adapted to it",
            "near `old_kl_target`",
        ),
        Entry(
            "beta",
            "Strength of the KL penalty",
            "",
            "none",
            "current strength of the penalty on `kl`",
            "changes only if it is warmed up or adapted",
        ),
        Entry(
            "old_kl",
            "Strength of PPO's penalty",
            "",
            "none",
            "current strength of PPO's penalty on `kl_old` (`form: kl`)",
            "halved and doubled around its target",
        ),
    ),
    "Sampler": (
        Entry(
            "mismatch/mean",
            "Mismatch, mean",
            "nats",
            "down",
            "difference between the log-probability of a token under π_old and in the rollout",
            "rounding: tiny in float32, larger in bfloat16; with a [lag](recipes.md#rollouts-ahead-of-training) also "
            "what was learned since",
            panel="Mismatch of sampler and trainer",
        ),
        Entry(
            "mismatch/max",
            "Mismatch, largest",
            "nats",
            "down",
            "the largest such difference in the step",
            "as `mismatch/mean`",
            panel="Mismatch of sampler and trainer",
        ),
        Entry(
            "ratio/noise",
            "Noise of GSPO's ratio",
            "nats",
            "down",
            "mean over completions of the absolute log of GSPO's ratio between two computations of the same policy: "
            "by the rollout and the trainer, or twice by the trainer before the weights change, whichever is larger",
            "far below GSPO's `eps_low`; GSPO warns if it is not",
        ),
        Entry(
            "staleness/mean",
            "Staleness, mean",
            "versions",
            "none",
            "by how many versions the policy that drew the tokens is behind; only if another version than the present "
            "one drew any",
            "`rollout.lag`",
            panel="Staleness",
        ),
        Entry(
            "staleness/max",
            "Staleness, largest",
            "versions",
            "none",
            "the most versions by which a token's policy is behind",
            "`rollout.lag`",
            panel="Staleness",
        ),
    ),
    "Optimizer": (
        Entry("step", "Step", "steps", "none", "training steps done; 0 is before the first"),
        Entry(
            "loss",
            "Loss",
            "",
            "none",
            "mean over the optimizer steps of the step",
            "falls in SFT, DPO and reward models; near 0 in GRPO, "
            "[whether it learns or not](#why-the-loss-is-near-zero)",
        ),
        Entry(
            "mixed/loss",
            "Loss of the second source",
            "",
            "down",
            "of a [second source](extending.md#a-second-source), without its coefficient; mean over the updates that "
            "it joined",
            "falls",
        ),
        Entry(
            "grad_norm",
            "Gradient norm",
            "",
            "none",
            "norm of the gradient before clipping",
            "steady; a sudden rise by orders of magnitude is not",
        ),
        Entry("learning_rate", "Learning rate", "", "none", "of the last optimizer step", "as the schedule says"),
        Entry("updates/applied", "Updates", "count", "none", "optimizer steps taken", panel="Optimizer steps"),
        Entry(
            "updates/skipped",
            "Updates skipped",
            "count",
            "none",
            "optimizer steps skipped because nothing had a gradient",
            "0, unless all groups have zero spread",
            panel="Optimizer steps",
        ),
    ),
}
