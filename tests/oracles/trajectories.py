"""Trajectories of several samples: their drawn tokens in one line, t = 1 … |o|, and what a model says of each.

A sample is run by itself, its prefix and then its tokens, through the model's own forward. A formula then gets of a
trajectory what it gets of a single completion: lists with one entry for each token that was drawn, in that order.
"""

import torch

from oracles.methods import Said, Step


def drawn(trajectory):
    """(sample, position) of o_1 … o_|o|; none of a trajectory whose reward failed, which is not trained on."""
    if trajectory.score is not None and trajectory.score.total is None:
        return []
    return [
        (number, position)
        for number, sample in enumerate(trajectory.samples)
        for position, own in enumerate(sample.loss_mask)
        if own
    ]


def steps(trajectory):
    """Index of each step's last token among the drawn ones → reward of the step."""
    places, rewards = drawn(trajectory), {}
    for step in trajectory.score.steps if trajectory.score is not None and places else ():
        index = sum(place <= (step.sample, step.position) for place in places) - 1
        assert index not in rewards
        rewards[index] = step.value
    return rewards


def plain_step(groups, *, limit, old, reference, divergence, values, final, coefficients):
    """The step of ``groups`` as lists over the drawn tokens; the arguments from ``old`` on are such lists."""
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    places = [drawn(trajectory) for trajectory in trajectories]

    def each(read):
        return [[read(t.samples[b], n) for b, n in own] for t, own in zip(trajectories, places, strict=True)]

    scores = [t.score for t in trajectories]
    return Step(
        groups=[number for number, group in enumerate(groups) for _ in group.trajectories],
        # A token with all that came before it: two trajectories alike were drawn alike from first to last.
        tokens=each(lambda sample, n: (sample.prefix_ids, sample.token_ids[: n + 1])),
        mask=each(lambda sample, n: True),
        rewards=[float("nan") if score is None or score.total is None else score.total for score in scores],
        truncated=[t.truncated for t in trajectories],
        limit=limit,
        steps=[steps(t) for t in trajectories],
        sample=each(lambda sample, n: sample.logprobs[n] if sample.logprobs else 0.0),
        old=old,
        reference=reference,
        divergence=divergence,
        values=values,
        final=final,
        coefficients=coefficients,
    )


def said_of_policy(model, trajectories, temperature, reference=None, value_head=None):
    """Log-probability, entropy, divergence from ``reference`` and value before each drawn token."""
    said = Said(logprobs=[], entropies=[], divergences=[], values=[], scores=[])
    for trajectory in trajectories:
        logs = [log_distributions(model, sample, temperature) for sample in trajectory.samples]
        places = drawn(trajectory)
        said.logprobs.append([logs[b][n, trajectory.samples[b].token_ids[n]] for b, n in places])
        said.entropies.append([-(logs[b][n].exp() * logs[b][n]).sum() for b, n in places])
        if reference is not None:
            with torch.no_grad():
                others = [log_distributions(reference, sample, temperature) for sample in trajectory.samples]
            said.divergences.append([(logs[b][n].exp() * (logs[b][n] - others[b][n])).sum() for b, n in places])
    if value_head is not None:
        said.values, said.scores = before_and_at(model, value_head, trajectories)
    return said


def said_of_scorer(model, head, trajectories):
    values, scores = before_and_at(model, head, trajectories)
    return Said(values=values, scores=scores)


def before_and_at(model, head, trajectories):
    """A head's output before each drawn token, the value of the state in which it was drawn, and at the token."""
    before, at = [], []
    for trajectory in trajectories:
        rows = [head_outputs(model, head, sample) for sample in trajectory.samples]
        places = drawn(trajectory)
        before.append([rows[b][n] for b, n in places])
        at.append([rows[b][n + 1] for b, n in places])
    return before, at


def final_values(model, head, trajectories):
    """The value of the state after everything: the last sample's prefix and all of its tokens."""
    with torch.no_grad():
        return [head_outputs(model, head, trajectory.samples[-1])[-1].item() for trajectory in trajectories]


def log_distributions(model, sample, temperature):
    """log π of the whole vocabulary for each token after the prefix, [tokens, V]."""
    ids = torch.tensor([[*sample.prefix_ids, *sample.token_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(sample.prefix_ids) - 1 : -1]
    return (logits / temperature).log_softmax(dim=-1)


def head_outputs(model, head, sample):
    """From the prefix's last token on, [tokens + 1]."""
    ids = torch.tensor([[*sample.prefix_ids, *sample.token_ids]])
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return head(states)[len(sample.prefix_ids) - 1 :, 0]
