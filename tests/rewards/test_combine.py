import threading
import time
from typing import Any

import pytest

from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.rewards import FunctionReward, Gate, ModelReward, Reward, WeightedSum, resolve_reward
from sharpen.rewards.models.model_reward import RewardModelSettings
from sharpen.rewards.text.verifiers import ExactAnswer
from sharpen.types import Score, StepValue, WeightedReward


def constant(value: float | None, name: str) -> FunctionReward:
    return FunctionReward(lambda completion: value, name)


def failing(name: str) -> FunctionReward:
    def fail(completion: str) -> float:
        if "x" in completion:
            raise KeyError("no x")
        return 1.0

    return FunctionReward(fail, name)


class Steps(Reward):
    name = "steps"

    def __init__(self, *steps: StepValue) -> None:
        self.steps = steps

    def score(self, groups: Any) -> list[tuple[Score, ...]]:
        total = sum(step.value for step in self.steps)
        return [tuple(Score(total, {"steps": total}, self.steps) for _ in g.trajectories) for g in groups]


def test_the_total_is_the_weighted_sum_of_what_applies(group: Any) -> None:
    parts = [(constant(2.0, "a"), 0.5), (constant(None, "b"), 3.0), (constant(1.0, "c"), -0.25)]
    (scores,) = WeightedSum(parts).score([group(["x"])])
    weighted_rewards = (WeightedReward(0.5, 2.0), WeightedReward(3.0, None), WeightedReward(-0.25, 1.0))
    assert scores == (Score(0.75, {"a": 2.0, "b": None, "c": 1.0}, weighted_rewards=weighted_rewards),)


def test_functions_and_verifiers_are_rewards(group: Any) -> None:
    def twice(completion: str) -> float:
        return 2.0

    total = WeightedSum([(twice, 0.5), (ExactAnswer(), 4.0), (constant(3.0, "three"), 1.0)])
    assert total.names == ("twice", "exact_answer", "three")
    (scores,) = total.score([group(["7", "8"], answer="7")])
    assert [score.total for score in scores] == [1.0 + 4.0 + 3.0, 1.0 + 0.0 + 3.0]


def test_nothing_that_applies_is_no_total(group: Any) -> None:
    only_logged = WeightedSum([(constant(None, "a"), 1.0), (constant(9.0, "length"), 0.0)])
    assert only_logged.score([group(["x"])])[0][0] == Score(None, {"a": None, "length": 9.0})


def test_names_are_made_unique(group: Any) -> None:
    total = WeightedSum([(constant(1.0, "f"), 1), (constant(2.0, "f"), 1), (constant(3.0, "f"), 1)])
    assert total.score([group(["x"])])[0][0].parts == {"f": 1.0, "f_2": 2.0, "f_3": 3.0}


def test_a_failing_part_makes_the_sample_fail(group: Any) -> None:
    scores = WeightedSum([(constant(1.0, "a"), 1.0), (failing("f"), 1.0)]).score([group(["ok", "x"])])[0]
    assert scores[0] == Score(
        2.0, {"a": 1.0, "f": 1.0}, weighted_rewards=(WeightedReward(1.0, 1.0), WeightedReward(1.0, 1.0))
    )
    assert scores[1].total is None
    assert scores[1].parts == {"a": 1.0, "f": None}
    assert scores[1].error is not None
    assert "f raised KeyError: 'no x'" in scores[1].error


def test_steps_are_weighted_and_in_order(group: Any) -> None:
    first, second = Steps(StepValue(3, 1.0), StepValue(8, 0.5)), Steps(StepValue(5, -2.0))
    score = WeightedSum([(first, 2.0), (second, 0.5)]).score([group(["x"])])[0][0]
    assert score.steps == (StepValue(3, 2.0), StepValue(5, -1.0), StepValue(8, 1.0))
    assert score.total == 2.0


def test_sums_within_sums_keep_their_parts(group: Any) -> None:
    inner = WeightedSum([(constant(1.0, "a"), 1.0), (constant(2.0, "b"), 1.0)], name="inner")
    score = WeightedSum([(inner, 0.5), (constant(1.0, "c"), 1.0)]).score([group(["x"])])[0][0]
    parts = {"inner": 3.0, "inner/a": 1.0, "inner/b": 2.0, "c": 1.0}
    assert score == Score(2.5, parts, weighted_rewards=(WeightedReward(0.5, 3.0), WeightedReward(1.0, 1.0)))


def test_votes_are_counted_on_the_first_reward_with_an_answer() -> None:
    total = WeightedSum([(constant(1.0, "a"), 1), (FunctionReward(ExactAnswer(answer_from="last_number")), 1)])
    assert total.has_answer
    assert total.answer("it is 1,000") == "1000"
    assert not WeightedSum([(constant(1.0, "a"), 1)]).has_answer


def test_weights_must_mean_something() -> None:
    with pytest.raises(RewardError, match="weight of reward 'a' is nan"):
        WeightedSum([(constant(1.0, "a"), float("nan"))])
    with pytest.raises(RewardError, match="other than 0"):
        WeightedSum([(constant(1.0, "a"), 0.0)])
    with pytest.raises(RewardError, match="other than 0"):
        WeightedSum([])


# Gates


def by_text(name: str, **values: float | None) -> FunctionReward:
    return FunctionReward(lambda completion: values[completion], name)


def gated(gate: Gate, *, weight: float = 0.0) -> WeightedSum:
    form = by_text("form", good=1.0, half=0.5, bad=0.0, other=None)
    right = by_text("right", good=1.0, half=1.0, bad=1.0, other=1.0)
    return WeightedSum([(form, weight), (right, 2.0)], gates={0: gate})


@pytest.mark.parametrize(
    ("gate", "totals"),
    [
        (Gate(), [2.0, 0.0, 0.0, 2.0]),
        (Gate(at_least=0.5), [2.0, 2.0, 0.0, 2.0]),
        (Gate(otherwise=-1.0), [2.0, -1.0, -1.0, 2.0]),
    ],
)
def test_without_the_gate_the_others_do_not_count_but_are_logged(gate: Gate, totals: list[float], group: Any) -> None:
    """A gate that does not apply to a completion closes nothing."""
    (scores,) = gated(gate).score([group(["good", "half", "bad", "other"])])
    assert [score.total for score in scores] == totals
    assert [score.parts["right"] for score in scores] == [1.0] * 4
    assert [score.parts["form"] for score in scores] == [1.0, 0.5, 0.0, None]


def test_a_gate_with_a_weight_counts_where_it_is_open(group: Any) -> None:
    (scores,) = gated(Gate(at_least=0.5), weight=0.25).score([group(["good", "half", "bad"])])
    assert [score.total for score in scores] == [2.25, 2.125, 0.0]


def test_the_total_is_the_sum_of_its_summands_also_behind_a_gate(group: Any) -> None:
    for gate in (Gate(), Gate(otherwise=-1.0)):
        (scores,) = gated(gate, weight=0.5).score([group(["good", "half", "bad", "other"])])
        for score in scores:
            assert score.total == sum(s.weight * s.value for s in score.weighted_rewards if s.value is not None)
        assert len({tuple(s.weight for s in score.weighted_rewards) for score in scores}) == 1
    assert scores[2].weighted_rewards == (WeightedReward(0.5, 0.0), WeightedReward(2.0, 0.0), WeightedReward(1.0, -1.0))


def test_what_a_gate_skips_is_not_computed(group: Any) -> None:
    asked: list[str] = []

    def right(completion: str) -> float:
        asked.append(completion)
        return 1.0

    form = by_text("form", good=1.0, bad=0.0)
    total = WeightedSum([(FunctionReward(right), 1.0), (form, 0.0)], gates={1: Gate(skip=True)})
    groups = [group(["bad", "bad"]), group(["bad", "good", "bad", "good"])]
    scores = total.score(groups)
    assert asked == ["good", "good"]
    assert [[score.total for score in of_group] for of_group in scores] == [[0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    assert [score.parts for score in scores[1][:2]] == [{"right": None, "form": 0.0}, {"right": 1.0, "form": 1.0}]


def test_rewards_that_know_only_whole_groups_are_given_smaller_ones(group: Any) -> None:
    class Lengths(Reward):
        name = "lengths"

        def score(self, groups: Any) -> list[tuple[Score, ...]]:
            assert groups
            return [tuple(Score(float(len(g.trajectories)), {"lengths": 0.0}) for _ in g.trajectories) for g in groups]

    form = by_text("form", good=1.0, bad=0.0)
    total = WeightedSum([(form, 0.0), (Lengths(), 1.0)], gates={0: Gate(skip=True)})
    scores = total.score([group(["bad"]), group(["good", "bad", "good"])])
    assert [[score.total for score in of_group] for of_group in scores] == [[0.0], [2.0, 0.0, 2.0]]
    assert [score.total for score in total.score([group(["bad"])])[0]] == [0.0]


def test_a_gate_that_fails_makes_the_sample_fail(group: Any) -> None:
    for skip in (False, True):
        total = WeightedSum([(failing("f"), 0.0), (constant(1.0, "a"), 1.0)], gates={0: Gate(skip=skip)})
        ok, failed = total.score([group(["ok", "x"])])[0]
        assert (ok.total, failed.total) == (1.0, None)
        assert failed.error is not None


def test_the_first_of_several_closed_gates_says_the_total(group: Any) -> None:
    rewards = [(constant(1.0, "a"), 1.0), (constant(0.0, "b"), 0.0), (constant(0.0, "c"), 0.0)]
    total = WeightedSum(rewards, gates={2: Gate(otherwise=-2.0), 1: Gate(otherwise=-1.0)})
    assert total.score([group(["x"])])[0][0].total == -1.0


def test_behind_a_closed_gate_the_total_is_the_only_step(group: Any) -> None:
    steps = Steps(StepValue(0, 1.0), StepValue(0, 0.5))
    for closed, expected in ((0.0, (StepValue(0, -1.0),)), (1.0, (StepValue(0, 1.0), StepValue(0, 0.5)))):
        steps.gives_steps = True
        total = WeightedSum([(steps, 1.0), (constant(closed, "a"), 0.0)], gates={1: Gate(otherwise=-1.0)})
        assert total.score([group(["x"])])[0][0].steps == expected


@pytest.mark.parametrize(
    ("given", "gate"),
    [
        (True, Gate()),
        (0.5, Gate(at_least=0.5)),
        (0, Gate(at_least=0.0)),
        ({"at_least": 2, "otherwise": -1, "skip": True}, Gate(at_least=2.0, otherwise=-1.0, skip=True)),
    ],
)
def test_how_a_recipe_writes_a_gate(given: Any, gate: Gate) -> None:
    total = resolve_reward([{"name": "tags", "gate": given}, "math"])
    assert isinstance(total, WeightedSum)
    assert (total.gates, total.weights) == ({0: gate}, (0.0, 1.0))


def test_a_gate_may_be_turned_off_and_have_a_weight() -> None:
    total = resolve_reward([{"name": "tags", "gate": False}, {"name": "math", "gate": True, "weight": 0.5}])
    assert isinstance(total, WeightedSum)
    assert (list(total.gates), total.weights) == ([1], (1.0, 0.5))


# Concurrency


def test_the_rewards_of_a_list_run_concurrently(group: Any) -> None:
    meet = threading.Barrier(3, timeout=20)

    def meeting(name: str) -> FunctionReward:
        def reward(completion: str) -> float:
            meet.wait()
            return float(len(completion))

        return FunctionReward(reward, name)

    total = WeightedSum([(meeting(name), weight) for name, weight in (("a", 1.0), ("b", 2.0), ("c", 0.5))])
    (scores,), seconds = total.score_timed([group(["x", "xx"])])
    assert [score.total for score in scores] == [3.5, 7.0]
    assert list(scores[0].parts) == list(seconds) == ["a", "b", "c"]
    assert all(of_part > 0 for of_part in seconds.values())


def test_what_must_not_run_concurrently_shares_a_group() -> None:
    def function(completion: str, scale: float = 1.0) -> float:
        return scale

    settings = RewardModelSettings(path="some/model")
    models = [ModelReward(settings), ModelReward(settings)]
    functions = [FunctionReward(function), FunctionReward(function, settings={"scale": 2.0})]
    judges = [resolve_reward({"name": function, "call": {"at_once": 2}}) for _ in range(2)]
    grouped = [resolve_reward({"name": "tags", "call": {"lane": lane}}) for lane in ("mine", "mine", "models")]
    assert models[0].concurrency_group == models[1].concurrency_group == grouped[2].concurrency_group
    assert functions[0].concurrency_group == functions[1].concurrency_group
    assert grouped[0].concurrency_group == grouped[1].concurrency_group
    assert len({r.concurrency_group for r in (models[0], functions[0], *judges, grouped[0])}) == 5


def test_scores_do_not_depend_on_which_reward_ends_first(group: Any) -> None:
    def slow(name: str, pause_s: float) -> FunctionReward:
        def reward(completion: str) -> float | None:
            time.sleep(pause_s)
            if completion == "5":
                raise ValueError(name)
            return None if completion == "4" else 0.1 + int(completion) / 3

        return FunctionReward(reward, name)

    groups = [group([str(i) for i in range(6)]), group(["7", "8"], id="p1")]
    for pauses_s in ((0.01, 0.0), (0.0, 0.01)):
        scores = WeightedSum([(slow("a", pauses_s[0]), 0.3), (slow("b", pauses_s[1]), 0.7)]).score(groups)
        batch = collate([g.scored(s) for g, s in zip(groups, scores, strict=True)])
        assert [s.total for s in scores[1]] == [0.3 * (0.1 + i / 3) + 0.7 * (0.1 + i / 3) for i in (7, 8)]
        assert scores[0][5].error is not None
        assert scores[0][5].error.index("a raised") < scores[0][5].error.index("b raised")
        assert list(scores[0][0].parts) == ["a", "b"]
        assert batch.rewards_EK is not None
        assert batch.rewards_EK.isnan().any(dim=1).tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_a_value_that_is_no_number_is_that_of_the_first_reward_of_the_list(group: Any) -> None:
    def nan(name: str, pause_s: float) -> FunctionReward:
        def reward(completion: str) -> float:
            time.sleep(pause_s)
            return float("nan")

        return FunctionReward(reward, name)

    with pytest.raises(RewardError, match="reward 'a' returned nan"):
        WeightedSum([(constant(1.0, "first"), 1.0), (nan("a", 0.05), 1.0), (nan("b", 0.0), 1.0)]).score([group(["x"])])
