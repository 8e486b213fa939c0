"""All illnesses, and which of them a run has."""

from __future__ import annotations

from collections.abc import Callable

from sharpen.report.diagnosis import (
    critic,
    dominance,
    held_out,
    lengths,
    optimization,
    policy,
    rewards,
    sampler,
    spread,
)
from sharpen.report.diagnosis.finding import Finding, gravest_first
from sharpen.report.diagnosis.history import History

Illness = Callable[[History], Finding | None]
"""Whether a run has it now. Its name is the id of its finding."""

OF_ROLLOUTS: tuple[Illness, ...] = (
    spread.no_rewards,
    spread.all_rewards_zero,
    spread.all_rewards_highest,
    spread.all_rewards_equal,
    spread.no_group_has_spread,
    spread.few_groups_have_spread,
    rewards.rewards_fail,
    rewards.rewards_time_out,
    rewards.completions_refused,
    rewards.environment_fails,
    rewards.reward_fell,
    policy.entropy_collapsed,
    policy.entropy_explodes,
    policy.kl_runs_away,
    policy.kl_old_runs_away,
    policy.clip_fraction_high,
    sampler.sampler_and_trainer_disagree,
    sampler.ratio_noise_above_clip_range,
    lengths.truncation_high,
    lengths.out_of_turns,
    lengths.length_grows_without_gain,
    lengths.length_decides_reward,
    dominance.one_part_decides,
    dominance.one_prompt_dominates,
    critic.critic_explains_nothing,
)
"""What completions show that the policy drew. Given ones have metrics of the same names, such as preferences' grades
as rewards, and a KL of what the policy would not write."""

OF_UPDATES: tuple[Illness, ...] = (
    spread.nothing_applied,
    optimization.gradients_spike,
    optimization.loss_rises,
    held_out.pairs_at_chance,
)
"""What the updates show, whatever they are made from."""

OF_MEASUREMENTS: tuple[Illness, ...] = (
    held_out.reward_rises_held_out_falls,
    held_out.part_falls_while_reward_rises,
    held_out.held_out_below_start,
    held_out.held_out_past_its_best,
    held_out.held_out_not_improved,
    held_out.overfitting,
)
"""What held-out measurements show."""

ILLNESSES = (*OF_ROLLOUTS, *OF_UPDATES, *OF_MEASUREMENTS)


def diagnose(history: History, *, measurements: bool = True) -> list[Finding]:
    """What is wrong with the run now, the gravest first; without ``measurements``, no look at the held-out ones."""
    if not history.trained:
        return []
    looked_for = (
        *(OF_ROLLOUTS if history.draws else ()),
        *OF_UPDATES,
        *(OF_MEASUREMENTS if measurements else ()),
    )
    return gravest_first([found for illness in looked_for if (found := illness(history)) is not None])
