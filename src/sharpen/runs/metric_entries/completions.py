"""What was written, and what judges and critics say of it."""

from __future__ import annotations

from sharpen.runs.metric_entries.entry import SHARE, Entry

COMPLETIONS: dict[str, tuple[Entry, ...]] = {
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
}
