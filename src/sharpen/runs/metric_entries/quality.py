"""Whether it gets better: held-out measures and rewards."""

from __future__ import annotations

from sharpen.runs.metric_entries.entry import SHARE, Entry

QUALITY: dict[str, tuple[Entry, ...]] = {
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
}
