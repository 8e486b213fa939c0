"""Whose value is whose: from the critic to PPO's targets, against states that are written out and read one at a time.

Everything here has another index than the program's: a value belongs to a state, not to a token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from oracles import states as oracle
from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.methods import PPO, ReinforcePlusPlus
from sharpen.methods.kl import KL
from sharpen.models.adapter_files import adapter_weights
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.lora import add_adapter
from sharpen.models.policy import Policy
from sharpen.models.scorer import Scorer
from sharpen.training.annotate import Annotator
from sharpen.training.reference import Reference
from sharpen.types import Finish, Group, Prompt, Score, Trajectory, single_turn
from tiny_models import loaded_scorer, tiny_policy

LIMITS = [
    MicrobatchLimits(1, True),
    MicrobatchLimits(30, True),
    MicrobatchLimits(10_000, True),
    MicrobatchLimits(10_000, False),
]
SETTINGS = [(1.0, 0.95, 0.0), (1.0, 1.0, 0.3), (0.9, 0.5, 0.3), (0.7, 0.0, 0.0)]
CRITICS = ["own", "own gpt2", "own lora", "shared", "shared gpt2", "shared lora"]


def completion(prompt: Prompt, ids: str, trained: str, finish: Finish) -> Trajectory:
    token_ids = tuple(int(c, 16) + 2 for c in ids)
    mask = tuple(c == "x" for c in trained)
    return single_turn(prompt.token_ids, token_ids, ids, loss_mask=mask, finish=finish)


def group(name: str, *members: tuple[str, str, Finish, float | None]) -> Group:
    prompt = Prompt(name, tuple(range(3, 3 + len(name))), name, {})
    completions = tuple(completion(prompt, ids, trained, finish) for ids, trained, finish, _ in members)
    return Group(prompt, completions).scored([Score(reward) for *_, reward in members])


CUT, EOS, STOP = Finish.LENGTH, Finish.EOS, Finish.STOP
GROUPS = [
    # Cut off, ended by itself and by a stop string; of different lengths; one without a score.
    group("four", ("1a2b3c", "xxxxxx", CUT, -1.0), ("1a2", "xxx", EOS, 2.0), ("1a4d", "xxxx", STOP, 0.5)),
    group("one", ("777777", "xxxxxx", CUT, None), ("8", "x", CUT, 0.25), ("9", "x", EOS, -0.75)),
    # What a tool wrote, marked by a point, in the middle, at the end, and at both.
    group("longer", ("1234", "x..x", CUT, 1.5), ("1234", "xx..", CUT, -2.0), ("567890", ".x.x..", CUT, 0.125)),
    group("last", ("ba", "x.", EOS, 3.0)),
]
SEQUENCES = [(g.prompt, c, s) for g in GROUPS for c, s in zip(g.trajectories, g.scores, strict=True)]


def filled(parameters: Any, scale: float) -> None:
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


@cache
def models(critic: str) -> dict[Any, Any]:
    kind, _, variant = critic.partition(" ")
    architecture = "gpt2" if variant == "gpt2" else "llama"
    policy = tiny_policy(architecture, dtype=torch.float64)
    if variant == "lora":
        add_adapter(policy, rank=3, alpha=5, targets="all-linear", seed=4)
        filled(adapter_weights(policy.model, policy.head_name).values(), 0.3)
    if kind == "shared":
        policy.add_value_head()
        assert policy.value_head is not None
        policy.value_head.double()
        filled(policy.value_head.parameters(), 1.0)
        return {"policy": policy}
    with TemporaryDirectory() as folder:
        scorer = loaded_scorer(Path(folder) / "critic", "token", architecture, seed=5)
    scorer.model.double()
    if variant == "lora":
        add_adapter(scorer, rank=3, alpha=5, targets="all-linear", seed=4)
        filled([p for name, p in scorer.model.named_parameters() if "lora" in name], 0.3)
    return {"policy": policy, "critic": scorer}


@torch.no_grad()
def value_of(critic: Policy | Scorer, state: list[int]) -> float:
    """One forward pass over the state alone, and the head's output at its last token."""
    if isinstance(critic, Scorer):
        logits: Tensor = critic.model(input_ids=torch.tensor([state])).logits
        return logits[0, -1, 0].item()
    assert critic.value_head is not None
    hidden: Tensor = critic.model(input_ids=torch.tensor([state]), output_hidden_states=True).hidden_states[-1][0, -1]
    return (hidden @ critic.value_head.weight[0] + critic.value_head.bias[0]).item()


@torch.no_grad()
def logprob_of(policy: Policy, state: list[int], token: int) -> float:
    logits: Tensor = policy.model(input_ids=torch.tensor([state])).logits
    return logits[0, -1].log_softmax(-1)[token].item()


@dataclass
class Expected:
    values: list[float]
    final: float
    advantages: list[float]
    targets: list[float]


@cache
def costs(critic: str, beta: float) -> list[list[float]]:
    """β (log π − log π_ref) of each token that was chosen, by sequence."""
    policy, other = models(critic)["policy"], reference(critic)
    found = []
    for prompt, c, _ in SEQUENCES:
        *states, _ = oracle.states(prompt.token_ids, c.token_ids, c.loss_mask)
        chosen = [id for id, mine in zip(c.token_ids, c.loss_mask, strict=True) if mine]
        logs = [logprob_of(policy, s, id) - logprob_of(other, s, id) for s, id in zip(states, chosen, strict=True)]
        found.append([beta * log for log in logs])
    return found


@cache
def reference(critic: str) -> Policy:
    return tiny_policy("gpt2" if critic.endswith("gpt2") else "llama", dtype=torch.float64, seed=9)


@cache
def expected(critic: str, gamma: float, lam: float, bootstrap: bool, target: str, beta: float) -> list[Expected]:
    model = models(critic).get("critic", models(critic)["policy"])
    found = []
    for (prompt, c, score), paid in zip(SEQUENCES, costs(critic, beta), strict=True):
        values = [value_of(model, state) for state in oracle.states(prompt.token_ids, c.token_ids, c.loss_mask)]
        rewards = [-x for x in paid]
        rewards[-1] += score.total or 0.0
        goes_on = bootstrap and c.last.finish is CUT
        values_on_the_way = [*values[:-1], values[-1] if goes_on else 0.0]
        returns = oracle.lambda_returns(rewards, values_on_the_way, gamma, lam)
        one_step = oracle.lambda_returns(rewards, values_on_the_way, gamma, 0.0)
        found.append(
            Expected(
                values[:-1],
                values[-1],
                [g - v for g, v in zip(returns, values, strict=False)],
                one_step if target == "td" else returns,
            )
        )
    return found


def annotated(critic: str, method: PPO, limits: MicrobatchLimits) -> Batch:
    compared = Reference(reference(critic), models(critic)["policy"], KL()) if method.needs_reference else None
    batch = collate(GROUPS, completion_limit=6)
    batch = Annotator(models(critic), compared, 1.0, limits).annotate(batch, method.streams, GROUPS)
    return replace(batch, coefficients={name: c.initial for name, c in method.coefficients().items()})


def ppo(critic: str, **settings: Any) -> PPO:
    kind: Literal["own", "shared"] = "shared" if critic.startswith("shared") else "own"
    return PPO(**{"critic": kind, "whiten_advantages": False, "beta": 0.0, **settings})


def assert_of_the_chosen(found_ET: Tensor, wanted: list[list[float]]) -> None:
    """The numbers of the tokens that were chosen, in order; 0 at all others, and of a sequence without a score."""
    for row, numbers, (_, c, score) in zip(found_ET.tolist(), wanted, SEQUENCES, strict=True):
        chosen = [t for t, mine in enumerate(c.loss_mask) if mine and score.total is not None]
        assert [row[t] for t in chosen] == pytest.approx(numbers[: len(chosen)], rel=1e-4, abs=2e-5)
        assert not any(x for t, x in enumerate(row) if t not in chosen)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("critic", CRITICS)
def test_values_before_each_token_and_after_what_was_cut_off(critic: str, limits: MicrobatchLimits) -> None:
    batch = annotated(critic, ppo(critic, bootstrap_truncated=True), limits)
    wanted = expected(critic, 1.0, 1.0, True, "lambda", 0.0)
    assert_of_the_chosen(batch["values"], [e.values for e in wanted])
    for final, e, (_, c, score) in zip(batch["final_values"].tolist(), wanted, SEQUENCES, strict=True):
        goes_on = c.last.finish is CUT and score.total is not None
        assert final == (pytest.approx(e.final, rel=1e-4, abs=2e-5) if goes_on else 0.0)
    # The states after a completion are others than the last in which a token was chosen.
    assert min(abs(e.final - e.values[-1]) for e in wanted) > 1e-3


@pytest.mark.parametrize("target", ["lambda", "td"])
@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.parametrize(("gamma", "lam", "beta"), SETTINGS)
@pytest.mark.parametrize("critic", ["own", "shared", "own gpt2"])
def test_advantages_and_targets_are_the_lambda_returns_of_the_states(
    critic: str, gamma: float, lam: float, beta: float, bootstrap: bool, target: Any
) -> None:
    method = ppo(critic, gamma=gamma, lam=lam, beta=beta, bootstrap_truncated=bootstrap, value_target=target)
    batch = annotated(critic, method, MicrobatchLimits(30, True))
    assert ("final_values" in batch) is bootstrap
    wanted = expected(critic, gamma, lam, bootstrap, target, beta)
    assert_of_the_chosen(method.advantages(batch), [e.advantages for e in wanted])
    assert_of_the_chosen(method.targets(batch), [e.targets for e in wanted])


def test_a_target_over_and_over_stays_where_the_formula_puts_it() -> None:
    """R = −1 and γ = 1: the last target is V(s_K) − 1, and does not move when the values become their targets."""
    cut = [group("a", ("12", "xx", CUT, -1.0), ("3", "x", CUT, -1.0)), group("bc", ("456", "x.x", EOS, -1.0))]
    batch = collate(cut, completion_limit=3)
    for gamma in (1.0, 0.5):
        method = ppo("own", gamma=gamma, lam=0.95, bootstrap_truncated=True)
        after = Annotator(models("own"), None, 1.0, LIMITS[2]).annotate(batch, method.streams, cut)
        ends = [
            value_of(models("own")["critic"], oracle.states(g.prompt.token_ids, c.token_ids, c.loss_mask)[-1])
            for g in cut
            for c in g.trajectories
        ]
        for _ in range(50):
            targets_ET = method.targets(after)
            after = after.with_streams(values=targets_ET)
        last = [gamma * end - 1 for end in ends[:2]]
        fixed = [[gamma * last[0], last[0], 0.0], [last[1], 0.0, 0.0], [-gamma, 0.0, -1.0]]
        torch.testing.assert_close(after["values"], torch.tensor(fixed, dtype=torch.float64), rtol=1e-4, atol=2e-5)


def test_without_bootstrapping_nothing_more_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, what was cut off is read to its end: one more token of three, and three of two that end with a tool."""
    seen: list[int] = []
    body = models("own")["critic"].model.base_model
    forward = body.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    monkeypatch.setattr(body, "forward", counting)
    annotated("own", ppo("own"), MicrobatchLimits(10_000, True))
    annotated("own", ppo("own", bootstrap_truncated=True), MicrobatchLimits(10_000, True))
    assert seen[1] - seen[0] == 1 + 1 + 1 + 3 + 3


def test_the_reward_to_go_of_reinforce_plus_plus_has_each_tokens_own_kl() -> None:
    """A_t = R − β Σ_{i ≥ t} (log π − log π_ref), whitened."""
    method = ReinforcePlusPlus(beta=0.3)
    batch = annotated("shared", method, MicrobatchLimits(30, True))  # type: ignore[arg-type]
    rows = [
        [(score.total or 0.0) - sum(paid[k:]) for k in range(len(paid))] if score.total is not None else []
        for (*_, score), paid in zip(SEQUENCES, costs("shared", 0.3), strict=True)
    ]
    numbers = list(chain(*rows))
    mean = sum(numbers) / len(numbers)
    std = (sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)) ** 0.5
    assert_of_the_chosen(method.advantages(batch), [[(x - mean) / std for x in row] for row in rows])
