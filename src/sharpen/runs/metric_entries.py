"""The metrics that a run logs: their units, which way is better, what they mean and what is normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["up", "down", "none"]
"""Which way is better; ``none`` where neither is."""

SHARE = "share"
"""The unit of numbers from 0 to 1 that are shown in percent."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric, or all that fit ``name``: in it ``@k`` is any number, and ``<name>`` and the like any text.

    The same in ``title`` stand for what was found there. ``meaning`` and ``normal`` are Markdown, as the page of the
    documentation has them. Metrics of one ``panel`` are drawn together.
    """

    name: str
    title: str
    unit: str
    direction: Direction
    meaning: str
    normal: str = ""
    panel: str = ""


ENTRIES: dict[str, tuple[Entry, ...]] = {
    "Held-out": (
        Entry(
            "held_out/pass@k",
            "Held-out pass@k",
            SHARE,
            "up",
            "chance that at least one of k completions is right, on held-out prompts",
            "pass@1 rises; at large k it usually stays",
        ),
        Entry(
            "held_out/maj@k",
            "Held-out maj@k",
            SHARE,
            "up",
            "how often the most frequent of k answers is right; ties are broken at random, in expectation",
            "rises with pass@1",
        ),
        Entry("held_out/reward", "Held-out reward", "reward", "up", "mean reward on held-out prompts", "rises"),
        Entry(
            "held_out/reward/<name>",
            "Held-out reward: <name>",
            "reward",
            "up",
            "mean of each of several rewards; one that applied to no completion is left out",
            "rises",
            panel="Held-out reward parts",
        ),
        Entry(
            "held_out/length",
            "Held-out length",
            "tokens",
            "none",
            "mean over held-out completions of the tokens that the model wrote, the end-of-sequence token included",
        ),
        Entry(
            "held_out/truncated",
            "Held-out truncated",
            SHARE,
            "down",
            "held-out completions that reached the limit of tokens without an end",
            "low; a truncated answer is rarely right",
        ),
        Entry(
            "held_out/loss",
            "Held-out loss",
            "nats",
            "down",
            "the method's loss on held-out rankings, marked steps or demonstrations: for reward models, and for `sft` "
            "and `dpo` without a reward",
            "falls; a rise while the training's own loss falls is overfitting",
        ),
    ),
    "Reward": (
        Entry("reward/mean", "Reward", "reward", "up", "mean over the completions of the step", "rises"),
        Entry(
            "reward/std",
            "Reward, standard deviation",
            "reward",
            "none",
            "standard deviation over the completions of the step",
            "above 0: without differences there is nothing to learn from",
        ),
        Entry(
            "reward/<name>",
            "Reward: <name>",
            "reward",
            "up",
            "mean of one reward before weighting, over the completions that it was computed for and applies to",
            "rises",
            panel="Reward parts",
        ),
        Entry(
            "groups/zero_spread",
            "Prompts without spread",
            SHARE,
            "down",
            "prompts whose completions all got the same reward, up to [rounding](rewards.md#equal-rewards): GRPO and "
            "similar methods learn nothing from them",
            "well below 1; near 1 the prompts are too easy or too hard",
        ),
        Entry(
            "groups/trained",
            "Prompts trained on",
            "prompts",
            "none",
            "with dynamic sampling: how many the step trained on",
            "`training.prompts_per_step`, unless rounds ran out",
        ),
        Entry(
            "groups/set_aside",
            "Prompts set aside",
            SHARE,
            "down",
            "prompts that dynamic sampling sampled but did not train on; `reward/…`, `length/…` and "
            "`groups/zero_spread` include them",
            "low; each costs a rollout",
        ),
        Entry(
            "reward/failed",
            "Failed rewards",
            SHARE,
            "down",
            "completions whose reward raised an exception or took too long",
            "0",
            panel="Failures of rewards",
        ),
        Entry(
            "reward/timed_out",
            "Rewards out of time",
            SHARE,
            "down",
            "completions whose reward took too long or raised a TimeoutError; `reward/failed` counts them too, unless "
            "it was [the completion's doing](rewards.md#what-a-completion-decides), which is a reward of 0",
            "0",
            panel="Failures of rewards",
        ),
        Entry("reward/retries", "Retried rewards", "count", "down", "repeated calls of a reward", "0"),
        Entry(
            "kept",
            "Completions kept",
            "completions",
            "none",
            "step 0 of `rft`: right answers of the initial policy, which the run imitates; `reward/…` and `length/…` "
            "of that row are over all sampled completions",
        ),
    ),
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
    "Completions": (
        Entry(
            "length/mean",
            "Length, mean",
            "tokens",
            "none",
            "tokens that the model wrote in a completion, the end-of-sequence token included; of data, tokens that "
            "are trained on",
            panel="Length",
        ),
        Entry("length/max", "Length, longest", "tokens", "none", "of the step's longest completion", panel="Length"),
        Entry(
            "truncated",
            "Truncated",
            SHARE,
            "down",
            "completions that reached `max_new_tokens` without an end",
            "low; a truncated answer is rarely right",
        ),
        Entry("turns/mean", "Turns", "turns", "none", "of the model in a trajectory, with `rollout.turns`"),
        Entry(
            "turns/out_of_turns",
            "Out of turns",
            SHARE,
            "down",
            "trajectories that reached `rollout.max_turns`, with `rollout.turns`",
            "low",
        ),
        Entry(
            "samples/mean",
            "Samples in a trajectory",
            "samples",
            "none",
            "of a trajectory, with `rollout.turns`",
            "1 if all conversations are [one run of tokens](rollouts.md#tokens-in-tokens-out)",
        ),
        Entry(
            "environment/failed",
            "Failed environments",
            SHARE,
            "down",
            "trajectories in which `rollout.turns` failed; `reward/failed` counts them too",
            "0",
        ),
        Entry(
            "data/left_out",
            "Rows left out",
            "rows",
            "down",
            "too long for the context, of those drawn in this step; only of "
            "[more than 20,000 rows](data.md#very-many-rows), with `data.overlong: drop`",
            "absent",
        ),
    ),
    "Critic": (
        Entry(
            "critic/loss",
            "Critic: loss",
            "reward²",
            "down",
            "half the mean squared error of the values; if the critic is a head on the policy, this is part of `loss`",
            "falls",
        ),
        Entry(
            "critic/grad_norm",
            "Critic: gradient norm",
            "",
            "none",
            "norm of its gradient before clipping",
            "as `grad_norm`",
        ),
        Entry("value/mean", "Value", "reward", "none", "mean of the critic's values", "near the mean reward"),
        Entry(
            "value/explained_variance",
            "Explained variance",
            SHARE,
            "up",
            "1 − variance of the errors / variance of the targets",
            "rises towards 1; 0 is no better than a constant",
        ),
    ),
    "Preferences": (
        Entry(
            "pair_accuracy",
            "Pair accuracy",
            SHARE,
            "up",
            "pairs in which the better completion has the higher score; DPO's score is β·(log π − log π_ref)",
            "rises from ½",
        ),
        Entry("pair_margin", "Pair margin", "score", "up", "mean difference of the two scores", "rises"),
        Entry(
            "score",
            "Score",
            "score",
            "none",
            "mean score of a reward model",
            "any value: only differences are learned",
        ),
        Entry(
            "score/shifted_by",
            "Score shifted by",
            "score",
            "none",
            "what was subtracted from all scores so that demonstrations average 0; last step only",
        ),
        Entry(
            "step_accuracy",
            "Step accuracy",
            SHARE,
            "up",
            "steps whose score is on the same side of ½ as their label",
            "rises",
        ),
    ),
    "Sources": (
        Entry(
            "source/<name>/prompts",
            "Prompts: <name>",
            "prompts",
            "none",
            "that the source gave in the step, including those set aside by dynamic sampling",
            "as its share says",
            panel="Prompts of each source",
        ),
    ),
    "Cost": (
        Entry(
            "tokens_per_s/rollout",
            "Tokens sampled per second",
            "tokens/s",
            "up",
            "completion tokens sampled per second",
            "steady",
            panel="Throughput",
        ),
        Entry(
            "tokens_per_s/training",
            "Tokens trained per second",
            "tokens/s",
            "up",
            "tokens computed per second of training; a shared prompt counts once per packed row",
            "steady",
            panel="Throughput",
        ),
        Entry(
            "time/step_s",
            "Time of the step",
            "s",
            "down",
            "the whole step, without evaluation and checkpoint",
            "steady, or as the lengths",
            panel="Time",
        ),
        Entry(
            "time/rollout_s",
            "Time of the rollout",
            "s",
            "down",
            "sampling; with a lag, of the batch that the step draws, not of the one that it trains on",
            panel="Time",
        ),
        Entry(
            "time/reward_s",
            "Time of the rewards",
            "s",
            "down",
            "scoring; with a lag, of the batch that the step draws, not of the one that it trains on",
            panel="Time",
        ),
        Entry("time/training_s", "Time of the training", "s", "down", "the optimizer steps of the step", panel="Time"),
        Entry("time/evaluation_s", "Time of the evaluation", "s", "down", "the held-out measures"),
        Entry(
            "time/reward/<name>_s",
            "Time of <name>",
            "s",
            "down",
            "each of several rewards; they run in parallel, so their sum may exceed `time/reward_s`",
            panel="Time of each reward",
        ),
        Entry(
            "rollout/reused_tokens",
            "Tokens reused",
            "tokens",
            "up",
            "of contexts whose keys and values had been kept from the turn before",
            "most of them, in long conversations",
        ),
        Entry(
            "rollout/preemptions",
            "Preemptions",
            "count",
            "down",
            "completions that made room for others and were taken up again",
            "absent; many say that `rollout.engine.kv_gib` is small",
            panel="Room for keys and values",
        ),
        Entry(
            "rollout/evictions",
            "Evictions",
            "count",
            "down",
            "conversations whose keys and values were dropped for want of room",
            "absent; many say that `rollout.engine.kv_gib` is small",
            panel="Room for keys and values",
        ),
    ),
}
"""All metrics by their group, in the order in which they are shown."""
