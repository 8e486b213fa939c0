"""Several data sources, and what the run costs."""

from __future__ import annotations

from sharpen.runs.metric_entries.entry import Entry

COST: dict[str, tuple[Entry, ...]] = {
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
