"""GDPO: several rewards, each normalised within its group before they are added (arXiv 2601.05242)."""

import math
from typing import Any

import pytest
import torch
from hand_made import ScriptedCollector, completion, group, prompt

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.methods import CISPO, DAPO, GRPO, GSPO, PPO, Method, resolve_method
from sharpen.rewards import FunctionReward, Gate, WeightedSum
from sharpen.rollout.sources import Collected, Collector, CurrentPolicy, DynamicSampling
from sharpen.types import Group, Score, WeightedReward

APART: dict[str, Any] = {"combine": "normalise_then_sum"}


def scored(values: dict[str, list[list[float | None]]], weights: dict[str, float], **gates: Gate) -> Batch:
    """Groups of completions of which each reward says what is given: one list of values for each group."""
    sizes = [len(of_group) for of_group in next(iter(values.values()))]
    groups = [
        Group(prompt(str(g)), tuple(completion(*range(3, 4 + i)) for i in range(size))) for g, size in enumerate(sizes)
    ]

    def reward(name: str) -> FunctionReward:
        given = iter([v for of_group in values[name] for v in of_group])
        return FunctionReward(lambda completion: next(given), name)

    placed = {list(values).index(name): gate for name, gate in gates.items()}
    total = WeightedSum([(reward(name), weights[name]) for name in values], gates=placed)
    return collate([g.scored(s) for g, s in zip(groups, total.score(groups), strict=True)])


def per_sequence(method: Method, batch: Batch) -> list[float]:
    """The advantage of each completion, which is that of its first token."""
    advantages_ET = method.advantages(batch)
    assert torch.equal(advantages_ET, advantages_ET[:, :1] * batch.mask_ET)
    return [float(a) for a in advantages_ET[:, 0]]


CORRECT_AND_BRIEF: dict[str, list[list[float | None]]] = {
    "correct": [[1.0, 0.0], [1.0, 1.0]],
    "brief": [[0.0, 1.0], [1.0, 0.0]],
}


def test_each_reward_is_normalised_then_weighted_then_whitened() -> None:
    """Two values of a group have z-scores of ±1/√2 whatever their distance; equal ones of 0.

    S is (1 − ½)/√2 = 0.354 and −0.354 in the first group, ½/√2 = 0.354 and −0.354 in the second. Its standard
    deviation over the four is √(4 · ⅛ / 3) = √(1/6), and 0.354/√(1/6) = √(6/8) = √3/2.
    """
    batch = scored(CORRECT_AND_BRIEF, {"correct": 1.0, "brief": 0.5})
    half = math.sqrt(3) / 2
    assert per_sequence(GRPO(group_size=2, **APART), batch) == pytest.approx([half, -half, half, -half])
    # The other way: the sums (1, ½) and (1½, 1) have the same z-scores, ±1/√2, which are not whitened.
    root = math.sqrt(0.5)
    assert per_sequence(GRPO(group_size=2), batch) == pytest.approx([root, -root, root, -root])


def test_a_reward_of_a_large_scale_drowns_the_others_only_in_the_sum() -> None:
    """The sums 100 and 1 follow the first reward; apart, the two are worth the same and cancel out."""
    values: dict[str, list[list[float | None]]] = {"large": [[100.0, 0.0]], "small": [[0.0, 1.0]]}
    batch = scored(values, {"large": 1.0, "small": 1.0})
    assert per_sequence(GRPO(group_size=2), batch) == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])
    assert per_sequence(GRPO(group_size=2, **APART), batch) == [0.0, 0.0]


def test_what_does_not_apply_or_has_failed_takes_no_part() -> None:
    """The third completion has no `brief`; the fourth fails, and what else is said of it counts nowhere.

    `correct` of 1, 0, 0 has mean ⅓ and variance ⅓ (over 2): z = 2/√3, −1/√3, −1/√3. `brief` of 0, 1: ∓1/√2.
    """

    def score(correct: float, brief: float | None) -> Score:
        return Score(correct, weighted_rewards=(WeightedReward(1.0, correct), WeightedReward(1.0, brief)))

    scores = (score(1.0, 0.0), score(0.0, 1.0), score(0.0, None), Score(None, {"correct": 1.0}, error="it raised"))
    batch = collate([Group(prompt("a"), tuple(completion(*range(3, 4 + i)) for i in range(4))).scored(scores)])
    first, second, third = 2 / math.sqrt(3) - math.sqrt(0.5), -1 / math.sqrt(3) + math.sqrt(0.5), -1 / math.sqrt(3)
    spread = math.sqrt((first**2 + second**2 + third**2) / 2)
    found = per_sequence(GRPO(group_size=4, **APART), batch)
    assert found == pytest.approx([first / spread, second / spread, third / spread, 0.0])


def test_behind_a_closed_gate_every_reward_is_0() -> None:
    """Right, but closed: as if wrong. `right` counts as 1, 0, so that z is ±1/√2, and the spread is √(½ + ½) = 1."""
    values: dict[str, list[list[float | None]]] = {"form": [[1.0, 0.0]], "right": [[1.0, 1.0]]}
    batch = scored(values, {"form": 0.0, "right": 1.0}, form=Gate())
    assert batch.rewards_E.tolist() == [1.0, 0.0]
    root = math.sqrt(0.5)
    assert per_sequence(GRPO(group_size=2, **APART), batch) == pytest.approx([root, -root])
    open_batch = scored(values, {"form": 0.0, "right": 1.0})
    assert per_sequence(GRPO(group_size=2, **APART), open_batch) == [0.0, 0.0]


def test_what_a_gate_takes_off_is_normalised_as_one_more_reward() -> None:
    values: dict[str, list[list[float | None]]] = {"form": [[1.0, 0.0]], "right": [[0.0, 0.0]]}
    batch = scored(values, {"form": 0.0, "right": 1.0}, form=Gate(otherwise=-5.0))
    assert batch.reward_weights == (1.0, 1.0)
    assert batch.rewards_EK is not None
    assert batch.rewards_EK.tolist() == [[0.0, 0.0], [0.0, -5.0]]
    root = math.sqrt(0.5)
    assert per_sequence(GRPO(group_size=2, **APART), batch) == pytest.approx([root, -root])


def test_a_single_reward_is_the_z_score_whitened() -> None:
    batch = collate([group("a", (completion(3), 3.0), (completion(4), 1.0))])
    assert batch.rewards_EK is None
    root = math.sqrt(0.5)
    assert per_sequence(GRPO(group_size=2, **APART), batch) == pytest.approx([root, -root])


@pytest.mark.parametrize("kind", [GRPO, GSPO, CISPO])
def test_every_group_method_can_do_so(kind: type[GRPO]) -> None:
    batch = scored(CORRECT_AND_BRIEF, {"correct": 1.0, "brief": 0.5})
    half = math.sqrt(3) / 2
    assert per_sequence(kind(group_size=2, **APART), batch) == pytest.approx([half, -half, half, -half])


def test_dynamic_sampling_keeps_groups_in_which_one_of_the_rewards_differs() -> None:
    """In the first the sums are equal, and teach something only apart; in the second nothing differs."""

    def of(name: str, *pairs: tuple[float, float]) -> Group:
        scores = tuple(
            Score(a + b, weighted_rewards=(WeightedReward(1.0, a), WeightedReward(1.0, b))) for a, b in pairs
        )
        return Group(prompt(name), (completion(3), completion(4))).scored(scores)

    groups = [of("differs", (1.0, 0.0), (0.0, 1.0)), of("flat", (1.0, 0.0), (1.0, 0.0))]

    class Given(CurrentPolicy):
        def collect(self, collector: Collector, prompts: int) -> Collected:
            return Collected(groups)

    method = DAPO(group_size=2, overlong_share=0.0, **APART)
    source = method.source()
    assert isinstance(source, DynamicSampling)
    found = {
        differ: [g.prompt.id for g in DynamicSampling(Given(2), 1, differ).collect(ScriptedCollector({}), 2).groups]
        for differ in (source.differ, "total")
    }
    assert found == {"parts": ["differs"], "total": ["differs", "flat"]}  # nothing differs: the step goes with these


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "grpo", "supervision": "process"}, "combine normalise_then_sum needs supervision outcome"),
        ({"name": "dr_grpo"}, "combine normalise_then_sum needs std group, not none"),
        ({"name": "grpo", "std_eps": 1e-4}, "combine normalise_then_sum needs std_eps 0.0, not 0.0001"),
        ({"name": "dapo"}, "combine normalise_then_sum needs overlong_share 0.0, not 0.2"),
        ({"name": "grpo", "beta": 0.1, "kl": {"placement": "reward"}}, "needs kl\\.placement loss"),
        ({"name": "grpo", "combine": "normalize_then_sum"}, "combine"),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_method({**APART, **settings})
    assert "combine" not in PPO.model_fields
