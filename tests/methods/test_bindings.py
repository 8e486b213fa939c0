"""A name binds the whole method: source, advantage, weights and loss, on steps worked out by hand."""

import math

import pytest
import torch
from hand_made import completion, group, losses, ready, rollout, rows

from sharpen.batch import Outputs
from sharpen.data.collate import collate
from sharpen.methods import METHODS, resolve_method
from sharpen.rollout.sources import (
    CurrentPolicy,
    Demonstrations,
    DynamicSampling,
    InitialPolicy,
    MarkedSteps,
    Preferences,
    Source,
)
from sharpen.types import Score, StepValue
from tiny_models import unscored

SOURCES: dict[str, Source] = {
    "sft": Demonstrations(),
    "rft": InitialPolicy(8, None, 1.0, 4, True),
    "online_rft": CurrentPolicy(8),
    "reward_model": Preferences(),
    "process_reward_model": MarkedSteps(),
    "dpo": Preferences(),
    "reinforce": CurrentPolicy(4),
    "rloo": CurrentPolicy(4),
    "reinforce_plus_plus": CurrentPolicy(1),
    "ppo": CurrentPolicy(1),
    "grpo": CurrentPolicy(8),
    "dr_grpo": CurrentPolicy(8),
    "dapo": DynamicSampling(CurrentPolicy(8), 10),
    "gspo": CurrentPolicy(8),
    "cispo": CurrentPolicy(8),
}
NAN = math.nan
LOG = math.log


def softplus(x: float) -> float:
    """−log σ(−x)."""
    return LOG(1 + math.exp(x))


@pytest.mark.parametrize("name", METHODS)
def test_where_completions_come_from(name: str) -> None:
    found = METHODS[name]().source()
    assert type(found) is type(SOURCES[name])
    assert vars(found) == vars(SOURCES[name])


TRAINED = {
    "reward_model": ["outcome_reward_model"],
    "process_reward_model": ["process_reward_model"],
    "ppo": ["policy", "critic"],
}


@pytest.mark.parametrize("name", METHODS)
def test_which_models_are_trained_and_what_they_need(name: str) -> None:
    """No reference where β is 0, the default of all but PPO and REINFORCE++; DPO is made of the comparison."""
    method = METHODS[name]()
    assert [objective.model for objective in method.objectives()] == TRAINED.get(name, ["policy"])
    assert method.makes_a_policy is (name not in ("reward_model", "process_reward_model"))
    assert method.needs_reward is (method.source().reads == "prompts")
    assert method.needs_reference is (name in ("reinforce_plus_plus", "ppo", "dpo"))


# Imitation


def test_sft_is_the_mean_over_tokens_or_over_demonstrations() -> None:
    shown = collate([unscored(g) for g in (group("a", (completion(3), 0)), group("b", (completion(4, 5, 6), 0)))])
    logprobs = rows([-1.0], [-2.0, -3.0, -4.0])
    for reduction, expected in (("tokens_of_batch", 10 / 4), ("per_sequence", (1 + 3) / 2)):
        method = resolve_method({"name": "sft", "reduction": reduction})
        assert losses(method, ready(method, shown), logprobs=logprobs) == {"policy": pytest.approx(expected)}


def test_online_rft_imitates_what_is_right_once_and_at_most_k_times() -> None:
    """Right are all but the third; the second is the first again; only two are kept per prompt."""
    drawn = collate(
        [
            group(
                "a",
                *((completion(*ids), r) for ids, r in (((3, 4), 1), ((3, 4), 2), ((5,), 0.9), ((6,), 1), ((7,), 1))),
            ),
            group("b", (completion(3, 4), 0.0), (completion(8), 1.0)),
        ]
    )
    logprobs = rows([-1, -2], [-1, -2], [-9], [-4], [-9], [-9, -9], [-6])
    method = resolve_method({"name": "online_rft", "at_most": 2})
    step = ready(method, drawn)
    assert step["advantages"].amax(dim=1).tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert losses(method, step, logprobs=logprobs)["policy"] == pytest.approx((1 + 2 + 4 + 6) / 4)
    every = resolve_method({"name": "online_rft", "unique": False, "threshold": 0.5})
    assert losses(every, ready(every, drawn), logprobs=logprobs)["policy"] == pytest.approx(
        (1 + 2 + 1 + 2 + 9 + 4 + 9 + 6) / 8
    )


# Preferences and labels


def ranking(*grades: float) -> tuple[object, ...]:
    return tuple((completion(3 + i, 4), grade) for i, grade in enumerate(grades))


def test_dpo_is_the_mean_over_the_pairs_of_each_prompt() -> None:
    """β = 0.5. First prompt: h = 1 beats h = −1. Second: h = 4, 0, 2 with grades 2, 1, 0: u = 2, 1 and −1."""
    batch = collate([group("a", *ranking(1, 0)), group("b", *ranking(2, 1, 0))])
    reference = rows([-1, -1], [-2, -2], [-3, -3], [-1, -1], [-2, -2])
    logprobs = reference + rows([0.5, 0.5], [-2, 1], [4, 0], [-1, 1], [1, 1])
    expected = (softplus(-1) + (softplus(-2) + softplus(-1) + softplus(1)) / 3) / 2
    method = resolve_method({"name": "dpo", "beta": 0.5})
    step = ready(method, batch, ref_logprobs=reference)
    assert losses(method, step, logprobs=logprobs)["policy"] == pytest.approx(expected)
    ipo = resolve_method({"name": "dpo", "beta": 0.5, "form": "ipo"})
    expected = ((2 - 1) ** 2 + ((4 - 1) ** 2 + (2 - 1) ** 2 + (-2 - 1) ** 2) / 3) / 2
    assert losses(ipo, step, logprobs=logprobs)["policy"] == pytest.approx(expected)
    # At the reference nothing is preferred yet: log 2, whatever the prompts.
    assert losses(method, step, logprobs=reference)["policy"] == pytest.approx(LOG(2))
    assert method.objectives()[0].atom == "group"


def test_a_dpo_step_says_how_many_pairs_are_the_right_way_round() -> None:
    batch = collate([group("a", *ranking(1, 0)), group("b", *ranking(2, 1, 0))])
    reference = torch.zeros(5, 2, dtype=torch.float64)
    method = resolve_method({"name": "dpo", "beta": 0.5})
    step = ready(method, batch, ref_logprobs=reference)
    said = Outputs(logprobs=rows([0.5, 0.5], [-2, 1], [4, 0], [-1, 1], [1, 1]))
    figures = method.objectives()[0].terms(said, step).figures
    # Of the winners: one of one; two of two; none of one. By β times 2; 4 and 2; −2.
    assert figures["pair_accuracy"].tolist() == pytest.approx([1, NAN, 1, 0, NAN], nan_ok=True)
    assert figures["pair_margin"].tolist() == pytest.approx([1, NAN, 1.5, -1, NAN], nan_ok=True)


def test_a_reward_model_reads_the_last_token_and_averages_the_pairs_of_a_prompt() -> None:
    batch = collate([group("a", *ranking(1, 0)), group("b", *ranking(2, 1, 0)), group("c", *ranking(1, 1, 0))])
    scores = rows([9, 1], [9, 2], [9, 2], [9, 0], [9, 1], [9, 5], [9, 1], [9, 2])
    first = softplus(1)
    second = (softplus(-2) + softplus(-1) + softplus(1)) / 3
    # A tie is dropped, from the sum and from the count.
    third = (softplus(-3) + softplus(1)) / 2
    method = resolve_method("reward_model")
    found = losses(method, ready(method, batch), scores=scores)
    assert found == {"outcome_reward_model": pytest.approx((first + second + third) / 3)}
    margins = resolve_method({"name": "reward_model", "margin": True})
    pair = collate([group("a", (completion(3, 4), 3.0), (completion(5, 6), 0.5))])
    assert losses(margins, ready(margins, pair), scores=rows([9, 4], [9, 1])) == {
        "outcome_reward_model": pytest.approx(softplus(-(3 - 2.5)))
    }
    random = resolve_method({"name": "reward_model", "noise": 0.1})
    assert losses(random, ready(random, pair), scores=rows([9, 4], [9, 1])) == {
        "outcome_reward_model": pytest.approx(-LOG(0.9 / (1 + math.exp(-3)) + 0.05))
    }


def test_a_process_reward_model_is_asked_at_the_end_of_each_step_only() -> None:
    marked = [
        group("a", (completion(3, 4, 5), 0.0)).scored([Score(0.0, steps=(StepValue(0, 1.0), StepValue(2, 0.0)))]),
        group("b", (completion(6, 7), 0.5)).scored([Score(0.5, steps=(StepValue(1, 0.5),))]),
    ]
    method = resolve_method("process_reward_model")
    step = ready(method, collate(marked))
    found = losses(method, step, scores=rows([2, 99, 3], [99, 1]))
    half = (softplus(-1) + softplus(1)) / 2
    assert found == {"process_reward_model": pytest.approx((softplus(-2) + softplus(3) + half) / 3)}


# REINFORCE and its baselines: two prompts, rewards 1, 0, 0 and 2, 4, 3; all completions of two tokens


def advantages(spec: object, rewards: list[list[float]], **given: object) -> list[float]:
    method = resolve_method(spec)  # type: ignore[arg-type]
    step = ready(method, rollout(rewards, [[2] * len(r) for r in rewards]), **given)
    assert torch.equal(step["advantages"][:, 0], step["advantages"][:, 1])
    return step["advantages"][:, 0].tolist()


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("none", [1, 0, 0, 2, 4, 3]),
        ("group_mean", [2 / 3, -1 / 3, -1 / 3, -1, 1, 0]),
        ("leave_one_out", [1, -0.5, -0.5, -1.5, 1.5, 0]),
        # Mean 5/3; squares (4 + 25 + 25 + 1 + 49 + 16)/9, each twice, over 11.
        ("whitened", [(r - 5 / 3) / math.sqrt(2 * 120 / 9 / 11) for r in (1, 0, 0, 2, 4, 3)]),
    ],
)
def test_the_baselines_of_reinforce(baseline: str, expected: list[float]) -> None:
    spec = {"name": "reinforce", "baseline": baseline, "group_size": 3}
    assert advantages(spec, [[1, 0, 0], [2, 4, 3]]) == pytest.approx(expected)


def test_rloo_is_reinforce_that_leaves_one_out() -> None:
    assert advantages("rloo", [[1, 0, 0], [2, 4, 3]]) == pytest.approx([1, -0.5, -0.5, -1.5, 1.5, 0])


def test_reinforce_sums_over_the_tokens_of_a_completion() -> None:
    """1/P 1/G Σ_i Σ_t A log π: longer completions weigh more."""
    batch = rollout([[1, 0], [0, 3]], [[1, 3], [2, 2]])
    logprobs = rows([-1], [-2, -2, -1], [-1, -1], [-2, -4])
    method = resolve_method("rloo")
    # A = 1, −1, −3, 3; the sums of log π −1, −5, −2, −6.
    expected = -(1 * -1 + -1 * -5 + -3 * -2 + 3 * -6) / 4
    assert losses(method, ready(method, batch), logprobs=logprobs)["policy"] == pytest.approx(expected)


def test_reinforce_plus_plus_whitens_what_is_left_to_come_of_reward_and_kl() -> None:
    """β = 1 with k1: costs 0.5 and −0.5 of tokens 1 and 2 of the first, 1 of the only token of the second."""
    batch = rollout([[2.0], [0.0]], [[2], [1]])
    method = resolve_method(
        {"name": "reinforce_plus_plus", "beta": 1.0, "kl": {"placement": "reward", "estimator": "k1"}}
    )
    old = rows([-1, -2], [-1])
    step = ready(method, batch, old_logprobs=old, ref_logprobs=rows([-1.5, -1.5], [-2]))
    # To go: 2 − 0 and 2.5; −1. Mean 3.5/3.
    to_go, mean = [2.0, 2.5, -1.0], 3.5 / 3
    std = math.sqrt(sum((x - mean) ** 2 for x in to_go) / 2)
    a = [(x - mean) / std for x in to_go]
    assert step["advantages"][step.mask_ET].tolist() == pytest.approx(a)
    # One ratio of 1.5 with A > 0 is clipped at 1.2; 0.5 with A < 0 at 0.8; mean over the three tokens.
    now = old + rows([LOG(1.1), LOG(1.5)], [LOG(0.5)])
    expected = -(1.1 * a[0] + 1.2 * a[1] + 0.8 * a[2]) / 3
    assert losses(method, step, logprobs=now)["policy"] == pytest.approx(expected)


# GRPO and its kin: rewards 1, 0, 0, 1 have mean 1/2 and std √(1/3) over G − 1


def test_grpo_is_the_z_score_and_the_mean_over_each_completion() -> None:
    batch = rollout([[1, 0, 0, 1]], [[1, 2, 1, 4]])
    a = 0.5 / math.sqrt(1 / 3)
    old = rows([-1], [-1, -1], [-1], [-1, -1, -1, -1])
    now = old + rows([LOG(1.5)], [LOG(1.1), LOG(0.5)], [LOG(2)], [0, 0, LOG(0.9), LOG(1.3)])
    reference = now + rows([LOG(2)], [0, 0], [0], [0, 0, 0, 0])
    method = resolve_method({"name": "grpo", "beta": 0.04})
    step = ready(method, batch, old_logprobs=old, ref_logprobs=reference)
    surrogate = a * (1.2 - (1.1 + 0.8) / 2 - 2 + (1 + 1 + 0.9 + 1.2) / 4) / 4
    penalty = 0.04 * (2 - LOG(2) - 1) / 4
    assert losses(method, step, logprobs=now)["policy"] == pytest.approx(-surrogate + penalty)
    tokens = resolve_method({"name": "grpo", "reduction": "tokens_of_batch"})
    step = ready(tokens, batch, old_logprobs=old)
    assert losses(tokens, step, logprobs=now)["policy"] == pytest.approx(-a * (1.2 - 1.9 - 2 + 4.1) / 8)


def test_dr_grpo_divides_by_neither_spread_nor_length() -> None:
    """Σ_t over the constant limit of 10 tokens, Â = ±1/2."""
    batch = rollout([[1, 0, 0, 1]], [[1, 2, 1, 4]])
    old = rows([-1], [-1, -1], [-1], [-1, -1, -1, -1])
    method = resolve_method("dr_grpo")
    step = ready(method, batch, old_logprobs=old)
    assert step["advantages"][:, 0].tolist() == [0.5, -0.5, -0.5, 0.5]
    assert losses(method, step, logprobs=old)["policy"] == pytest.approx(-0.5 * (1 - 2 - 1 + 4) / 10 / 4)
    shorter = resolve_method({"name": "dr_grpo", "constant_length": 4})
    assert losses(shorter, ready(shorter, batch, old_logprobs=old), logprobs=old)["policy"] == pytest.approx(
        -0.5 * 2 / 4 / 4
    )


def test_dapo_punishes_length_softly_clips_higher_and_averages_the_tokens_of_a_group() -> None:
    """The limit is 10 and the cache 0.2 of it: 9 tokens cost 1/2, 10 cost 1. Rewards 1, 1, −1, 1 become as below."""
    batch = rollout([[1, 1, -1, 1]], [[9, 10, 8, 1]])
    punished = torch.tensor([0.5, 0.0, -1.0, 1.0], dtype=torch.float64)
    a = ((punished - 0.125) / punished.std()).tolist()
    assert punished.std().item() == pytest.approx(math.sqrt((0.375**2 + 0.125**2 + 1.125**2 + 0.875**2) / 3))
    old = torch.full((4, 10), -1.0, dtype=torch.float64)
    now = old.clone()
    now[0, 0] += LOG(1.27)  # live, and beyond GRPO's 1.2
    now[3, 0] += LOG(1.5)  # clipped at 1.28
    now[2, 0] += LOG(0.7)  # clipped at 0.8
    method = resolve_method("dapo")
    step = ready(method, batch, old_logprobs=old)
    total = a[0] * (8 + 1.27) + a[1] * 10 + a[2] * (7 + 0.8) + a[3] * 1.28
    assert losses(method, step, logprobs=now)["policy"] == pytest.approx(-total / 28)


def test_gspo_clips_whole_completions_by_the_mean_of_their_log_ratios() -> None:
    batch = rollout([[1, 0]], [[2, 4]])
    a = 0.5 / math.sqrt(0.5)
    old = torch.full((2, 4), -1.0, dtype=torch.float64)
    # Means of the log-ratios: 2e-4, within 4e-4; −5e-4, beyond 3e-4 with a negative advantage.
    now = old + rows([6e-4, -2e-4], [-2e-3, 0, 0, 0])
    for form in ("sequence", "token"):
        method = resolve_method({"name": "gspo", "form": form})
        step = ready(method, batch, old_logprobs=old)
        expected = -(math.exp(2e-4) * a - (1 - 3e-4) * a) / 2
        assert losses(method, step, logprobs=now)["policy"] == pytest.approx(expected, rel=1e-5)
        assert expected == pytest.approx(-a * 5e-4 / 2, rel=1e-4)


def test_cispo_weighs_log_likelihoods_and_never_drops_one() -> None:
    batch = rollout([[1, 0]], [[1, 3]])
    a = 0.5 / math.sqrt(0.5)
    old = rows([-1], [-1, -2, -3])
    now = (old + rows([LOG(2)], [LOG(0.1), 0, LOG(9)])).requires_grad_()
    method = resolve_method("cispo")
    step = ready(method, batch, old_logprobs=old)
    n = now.tolist()
    expected = -(1.28 * a * n[0][0] - a * (0.1 * n[1][0] + 1 * n[1][1] + 1.28 * n[1][2])) / 4
    assert losses(method, step, logprobs=now)["policy"] == pytest.approx(expected)


def test_process_supervision_binds_the_pooled_z_score_to_go() -> None:
    """Steps 1, 3 of the first and 2 of the second: mean 2, std 1; to go 0, 1 and 0; of the own step −1, 1 and 0."""
    scores = (Score(4.0, steps=(StepValue(0, 1.0), StepValue(2, 3.0))), Score(2.0, steps=(StepValue(1, 2.0),)))
    batch = collate([group("a", (completion(3, 4, 5), 4.0), (completion(6, 7), 2.0)).scored(scores)])
    for supervision, expected in (("process", [[0, 1, 1], [0, 0, 0]]), ("own_step", [[-1, 1, 1], [0, 0, 0]])):
        step = ready(resolve_method({"name": "grpo", "supervision": supervision}), batch)
        assert step["advantages"].tolist() == expected


# What policy methods share


def test_completions_that_were_cut_off_count_in_the_baseline_but_not_in_the_loss() -> None:
    batch = rollout([[1, 0, 0, 1]], [[1, 10, 2, 1]])
    old = torch.full((4, 10), -1.0, dtype=torch.float64)
    method = resolve_method({"name": "grpo", "mask_truncated": True})
    step = ready(method, batch, old_logprobs=old)
    assert step.mask_ET.sum(dim=1).tolist() == [1, 0, 2, 1]
    a = 0.5 / math.sqrt(1 / 3)
    assert losses(method, step, logprobs=old)["policy"] == pytest.approx(-a * (1 - 1 + 1) / 3)


def test_entropy_bonus_dual_clip_and_correction_in_one_term() -> None:
    """One token each of A = ±a: ρ = 5 with A < 0 stops at 3; π_old/π_rollout of 0.5 and of 4, cut at 2."""
    batch = rollout([[1, 0]], [[1, 1]])
    a = 0.5 / math.sqrt(0.5)
    old = rows([-1], [-2])
    method = resolve_method({"name": "grpo", "entropy_coef": 0.1, "dual_clip": 3, "tis_cap": 2})
    step = ready(method, batch, old_logprobs=old, rollout_logprobs=old - rows([LOG(0.5)], [LOG(4)]))
    found = losses(method, step, logprobs=old + rows([0], [LOG(5)]), entropy=rows([0.3], [0.7]))
    assert found["policy"] == pytest.approx((-a * 0.5 - 0.03 + 3 * a * 2 - 0.07) / 2)
    assert method.objectives()[0].needs == {"logprobs", "entropy"}
    assert method.objectives()[0].without_advantage


def test_kl_in_the_reward_lowers_rewards_and_kl_in_the_loss_does_not() -> None:
    """β = 0.1, k1: log π_old − log π_ref sums to 1 and −1, so that rewards 1 and 1 become 0.9 and 1.1."""
    batch = rollout([[1, 1]], [[2, 2]])
    old, reference = rows([-1, -1], [-2, -2]), rows([-1.5, -1.5], [-1, -2])
    in_reward = resolve_method(
        {"name": "grpo", "beta": 0.1, "std": "none", "kl": {"placement": "reward", "estimator": "k1"}}
    )
    step = ready(in_reward, batch, old_logprobs=old, ref_logprobs=reference)
    assert step["advantages"].tolist() == [pytest.approx([-0.1, -0.1]), pytest.approx([0.1, 0.1])]
    assert losses(in_reward, step, logprobs=old)["policy"] == pytest.approx(0.0)
    assert in_reward.objectives()[0].streams == {"old_logprobs"}
    assert in_reward.streams == {"old_logprobs", "ref_logprobs"}
    in_loss = resolve_method({"name": "grpo", "beta": 0.1, "std": "none", "kl": {"estimator": "k2"}})
    step = ready(in_loss, batch, old_logprobs=old, ref_logprobs=reference)
    assert step["advantages"].abs().max() == 0
    assert losses(in_loss, step, logprobs=old)["policy"] == pytest.approx(0.1 * (0.5 + 1) * 0.5 / 4)
    assert in_loss.streams == frozenset()
    exact = resolve_method({"name": "grpo", "beta": 0.1, "kl": {"placement": "reward", "estimator": "exact"}})
    assert exact.streams == {"kl"}


def test_the_present_strength_of_the_penalty_is_what_counts() -> None:
    """Not the setting, which is where it begins."""
    batch = rollout([[1, 1]], [[1, 1]])
    old, reference = rows([-1], [-1]), rows([-1 + LOG(2)], [-1])
    method = resolve_method({"name": "grpo", "beta": 0.04})
    step = ready(method, batch, old_logprobs=old, ref_logprobs=reference, coefficients={"beta": 3.0})
    assert losses(method, step, logprobs=old)["policy"] == pytest.approx(3 * (2 - LOG(2) - 1) / 2)
