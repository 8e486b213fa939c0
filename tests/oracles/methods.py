"""The loss of one optimizer step of every method, whole: from rewards to advantages to terms to one number.

A step is lists of Python numbers, a list per sequence; what a model says of it lists of scalars that remember their
gradient. ``LOSSES[name](method, step, said)`` gives the loss of each model that the method trains; ``method`` is asked
for its settings only, ``said`` is by model.
"""

import math
from dataclasses import dataclass

import torch

from oracles import kl, policy, preference, reduction, returns
from oracles.advantages import has_spread, leave_one_out, outcome_advantages, whitened


@dataclass
class Step:
    groups: list
    tokens: list
    mask: list
    rewards: list
    truncated: list
    limit: int
    steps: list
    sample: list
    old: list
    reference: list
    divergence: list
    values: list
    final: list
    coefficients: dict


@dataclass
class Said:
    logprobs: list = ()
    entropies: list = ()
    divergences: list = ()
    values: list = ()
    scores: list = ()


def last(mask):
    return max((t for t, counts in enumerate(mask) if counts), default=None)


def trained(method, step):
    """A completion that was cut off can be left out of the loss."""
    return [
        [counts and not (method.mask_truncated and cut) for counts in row]
        for row, cut in zip(step.mask, step.truncated, strict=True)
    ]


def cost(method, step):
    """β KL(π_old ‖ π_ref) of each token that counts, where it is taken off the reward."""
    rows = []
    for i, mask in enumerate(step.mask):
        row = [0.0] * len(mask)
        for t, counts in enumerate(mask):
            if counts and method.beta and method.kl.placement == "reward":
                x = step.reference[i][t] - step.old[i][t]
                estimates = {"k1": -x, "k2": x * x / 2, "k3": math.exp(x) - 1 - x, "exact": step.divergence[i][t]}
                row[t] = step.coefficients["beta"] * estimates[method.kl.estimator]
        rows.append(row)
    return rows


def token_rewards(method, step):
    """R_t = −β KL_t, plus the completion's reward at its last token."""
    rows = [[-c for c in row] for row in cost(method, step)]
    for row, mask, reward in zip(rows, step.mask, step.rewards, strict=True):
        if not math.isnan(reward):
            row[last(mask)] += reward
    return rows


def same_along(advantages, step):
    return [[a if counts else 0.0 for counts in mask] for a, mask in zip(advantages, step.mask, strict=True)]


def group_advantages(method, step):
    if method.supervision != "outcome":
        return returns.process_advantages(
            step.steps,
            step.mask,
            step.groups,
            mode="to_go" if method.supervision == "process" else "own",
            std=method.std,
            ddof=method.ddof,
            eps=method.std_eps,
        )
    rewards = []
    for reward, mask, paid in zip(step.rewards, step.mask, cost(method, step), strict=True):
        punishment = 0.0
        if method.overlong_share:
            cache = round(method.overlong_share * step.limit)
            punishment = max(-1.0, min(0.0, (step.limit - cache - sum(mask)) / cache))
        rewards.append(reward - sum(paid) + punishment)
    advantages = outcome_advantages(rewards, step.groups, std=method.std, ddof=method.ddof, eps=method.std_eps)
    if method.dynamic_sampling:
        # A group whose rewards are all the same is to be set aside, whatever the lengths of its completions.
        for i, group in enumerate(step.groups):
            own = [r for r, g in zip(step.rewards, step.groups, strict=True) if g == group and not math.isnan(r)]
            advantages[i] = advantages[i] if has_spread(own) else 0.0
    return same_along(advantages, step)


def followed(method, step, said, advantages, surrogate):
    """The terms of each token: the surrogate, corrected for the engine, with the KL and less the entropy."""
    terms = []
    for i, logprobs in enumerate(said.logprobs):
        row = surrogate(logprobs, step.old[i], advantages[i], trained(method, step)[i])
        for t, logprob in enumerate(logprobs):
            if method.tis_cap is not None:
                row[t] = row[t] * min(math.exp(step.old[i][t] - step.sample[i][t]), method.tis_cap)
            if method.beta and method.kl.placement == "loss":
                if method.kl.estimator == "exact":
                    penalty = said.divergences[i][t]
                elif method.kl.estimator == "weighted_k3":
                    penalty = kl.weighted_k3(logprob, step.old[i][t], step.reference[i][t])
                else:
                    penalty = getattr(kl, method.kl.estimator)(logprob, step.reference[i][t])
                row[t] = row[t] + step.coefficients["beta"] * penalty
            if method.entropy_coef:
                row[t] = row[t] - method.entropy_coef * said.entropies[i][t]
        terms.append(row)
    return terms


def clipped(method):
    bounds = {"eps_low": method.eps_low, "eps_high": method.eps_high, "dual_clip": method.dual_clip}
    return lambda logprobs, old, advantages, mask: policy.clipped(logprobs, old, advantages, **bounds)


def grpo(method, step, said):
    terms = followed(method, step, said["policy"], group_advantages(method, step), clipped(method))
    if method.reduction == "constant":
        length = method.constant_length or step.limit
        return {"policy": reduction.constant_length(terms, trained(method, step), step.groups, length)}
    return {"policy": getattr(reduction, method.reduction)(terms, trained(method, step), step.groups)}


def gspo(method, step, said):
    bounds = {"eps_low": method.eps_low, "eps_high": method.eps_high, "dual_clip": method.dual_clip}
    form = policy.sequence if method.form == "sequence" else policy.sequence_token
    terms = followed(
        method, step, said["policy"], group_advantages(method, step), lambda *token: form(*token, **bounds)
    )
    return {"policy": reduction.per_sequence(terms, trained(method, step), step.groups)}


def cispo(method, step, said):
    def surrogate(logprobs, old, advantages, mask):
        return policy.clipped_weight(logprobs, old, advantages, method.eps_high, method.eps_low)

    terms = followed(method, step, said["policy"], group_advantages(method, step), surrogate)
    return {"policy": reduction.tokens_of_group(terms, trained(method, step), step.groups)}


def reinforce(method, step, said):
    if method.baseline in ("none", "whitened"):
        rewards = token_rewards(method, step)
        rows = [returns.reward_to_go(r, mask, 1.0) for r, mask in zip(rewards, step.mask, strict=True)]
        advantages = whitened(rows, step.mask) if method.baseline == "whitened" else rows
    else:
        rewards = [reward - sum(paid) for reward, paid in zip(step.rewards, cost(method, step), strict=True)]
        if method.baseline == "leave_one_out":
            advantages = same_along(leave_one_out(rewards, step.groups), step)
        else:
            advantages = same_along(outcome_advantages(rewards, step.groups, std="none"), step)

    def surrogate(logprobs, old, advantages, mask):
        if method.clip is None:
            return policy.policy_gradient(logprobs, advantages)
        return policy.clipped(
            logprobs, old, advantages, eps_low=method.clip, eps_high=method.clip, dual_clip=method.dual_clip
        )

    terms = followed(method, step, said["policy"], advantages, surrogate)
    if method.reduction == "sum":
        return {"policy": reduction.constant_length(terms, trained(method, step), step.groups, 1)}
    return {"policy": getattr(reduction, method.reduction)(terms, trained(method, step), step.groups)}


def ppo(method, step, said):
    rewards = token_rewards(method, step)
    advantages, targets = [], []
    for i, mask in enumerate(step.mask):
        after = 0.0
        if method.bootstrap_truncated and step.truncated[i] and any(mask):
            after = step.final[i]
        of_i = rewards[i], step.values[i], mask, method.gamma
        advantages.append(returns.gae(*of_i, method.lam, after))
        if method.value_target == "td":
            targets.append(returns.td_targets(*of_i, after))
        else:
            targets.append([a + v for a, v in zip(advantages[i], step.values[i], strict=True)])
    if method.whiten_advantages:
        advantages = whitened(advantages, step.mask)

    def penalised(logprobs, old, advantages, mask):
        return policy.kl_penalised(logprobs, old, advantages, step.coefficients["old_kl"])

    surrogate = penalised if method.form == "kl" else clipped(method)
    terms = followed(method, step, said["policy"], advantages, surrogate)
    errors = []
    critic = said["critic" if method.critic == "own" else "policy"]
    for values, before, wanted in zip(critic.values, step.values, targets, strict=True):
        row = []
        for value, old_value, target in zip(values, before, wanted, strict=True):
            error = (value - target) ** 2
            if method.value_clip is not None:
                near = max(old_value - method.value_clip, min(old_value + method.value_clip, value))
                error = max(error, (near - target) ** 2)
            row.append(error / 2)
        errors.append(row)
    policy_loss = reduction.tokens_of_batch(terms, trained(method, step), step.groups)
    critic_loss = reduction.tokens_of_batch(errors, trained(method, step), step.groups)
    if method.critic == "own":
        return {"policy": policy_loss, "critic": critic_loss}
    return {"policy": policy_loss + method.value_coef * critic_loss}


def imitated(method, step, said, mask):
    terms = [[-logprob for logprob in row] for row in said["policy"].logprobs]
    return {"policy": getattr(reduction, method.reduction)(terms, mask, step.groups)}


def sft(method, step, said):
    return imitated(method, step, said, step.mask)


def online_rft(method, step, said):
    kept = {}
    mask = []
    for i, counts in enumerate(step.mask):
        written = step.tokens[i][: last(counts) + 1] if any(counts) else None
        others = kept.setdefault(step.groups[i], [])
        right = written is not None and step.rewards[i] >= method.threshold
        if right and not (method.unique and written in others) and len(others) != method.at_most:
            others.append(written)
            mask.append(counts)
        else:
            mask.append([False] * len(counts))
    return imitated(method, step, said, mask)


def ranked(step, loss_of_group):
    """The mean over the groups that have a pair to tell apart."""
    losses = []
    for group in sorted(set(step.groups)):
        members = [i for i, g in enumerate(step.groups) if g == group and not math.isnan(step.rewards[i])]
        loss = loss_of_group(members, [step.rewards[i] for i in members])
        if loss is not None:
            losses.append(loss)
    return sum(losses) / len(losses)


def dpo(method, step, said):
    """The mean over a group's pairs of −log σ(β(h⁺ − h⁻)), or of its other form."""

    def of_group(members, grades):
        h = []
        for i in members:
            rows = zip(said["policy"].logprobs[i], step.reference[i], step.mask[i], strict=True)
            h.append(sum(logprob - ref for logprob, ref, counts in rows if counts))
        pairs = [(w, l) for w in range(len(h)) for l in range(len(h)) if grades[w] > grades[l]]
        if method.form == "ipo":
            losses = [preference.ipo(h[w], h[l], method.beta) for w, l in pairs]
        else:
            losses = [preference.dpo(h[w], h[l], method.beta, method.label_smoothing) for w, l in pairs]
        return sum(losses) / len(losses) if losses else None

    return {"policy": ranked(step, of_group)}


def reward_model(method, step, said):
    def of_group(members, grades):
        scores = [said["outcome_reward_model"].scores[i][last(step.mask[i])] for i in members]
        return preference.ranking(scores, grades, margin=method.margin, noise=method.noise)

    return {"outcome_reward_model": ranked(step, of_group)}


def process_reward_model(method, step, said):
    losses = [
        preference.step(said["process_reward_model"].scores[i][t], torch.tensor(label, dtype=torch.float64))
        for i, ends in enumerate(step.steps)
        for t, label in ends.items()
        if step.mask[i][t]
    ]
    return {"process_reward_model": sum(losses) / len(losses)}


LOSSES = {
    "sft": sft,
    "rft": sft,
    "online_rft": online_rft,
    "reward_model": reward_model,
    "process_reward_model": process_reward_model,
    "dpo": dpo,
    "reinforce": reinforce,
    "rloo": reinforce,
    "reinforce_plus_plus": reinforce,
    "ppo": ppo,
    "grpo": grpo,
    "dr_grpo": grpo,
    "dapo": grpo,
    "gspo": gspo,
    "cispo": cispo,
}
