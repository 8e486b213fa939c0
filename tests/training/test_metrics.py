"""The numbers of a step on a batch small enough to work them out by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sharpen.batch import Batch, Outputs
from sharpen.data.collate import collate
from sharpen.methods import GRPO, LossTerms
from sharpen.rollout.sources import Collected
from sharpen.training.metrics import rollout_metrics, sampling_metrics
from sharpen.training.token_stats import TokenStats
from sharpen.types import Finish, Group, Prompt, Score, StepValue, Trajectory, single_turn
from tiny_models import make_batch, unscored, with_given

NAN = float("nan")


def completion(length: int, finish: Finish = Finish.EOS) -> Trajectory:
    return single_turn((1, 2), (5,) * length, "", finish=finish)


def group(name: str, *members: tuple[Trajectory, Score]) -> Group:
    completions, scores = zip(*members, strict=True)
    return Group(Prompt(name, (1, 2), "", {}), completions).scored(scores)


def test_what_is_said_of_a_rollout() -> None:
    groups = [
        group(
            "spread",
            (completion(2), Score(1.0, {"right": 1.0, "brief": 0.5})),
            (completion(4, Finish.LENGTH), Score(0.0, {"right": 0.0, "brief": None})),
            (completion(3, Finish.STOP), Score(None, {"right": None}, error="it raised", retries=2)),
        ),
        group(
            "flat",
            (completion(1), Score(2.0, {"right": 1.0}, retries=1)),
            (completion(10), Score(None, {"right": 1.0}, error="it took too long", timed_out=True)),
        ),
    ]
    found = rollout_metrics(groups, collate(groups))
    assert found == {
        "length/mean": 4.0,
        "length/max": 10.0,
        "truncated": 0.2,
        # Of 1, 0 and 2; the other two have failed.
        "reward/mean": 1.0,
        "reward/std": pytest.approx(math.sqrt(2 / 3)),
        "groups/zero_spread": 0.5,
        "reward/failed": 0.4,
        "reward/timed_out": 0.2,
        "reward/retries": 3,
        "reward/right": 0.75,
        "reward/brief": 0.5,
    }


def test_without_a_reward_only_lengths_are_said() -> None:
    groups = [Group(Prompt("a", (1, 2), "", {}), (completion(3), completion(5, Finish.LENGTH)))]
    assert rollout_metrics(groups, collate(groups)) == {
        "length/mean": 4.0,
        "length/max": 5.0,
        "truncated": 0.5,
    }


def batch(**given: Any) -> Batch:
    """Two sequences of at most 3 tokens; the last token of the second is not trained on."""
    return make_batch(
        prefixes=(torch.tensor([1]),),
        group_E=torch.tensor([0, 0]),
        tokens_ET=torch.zeros(2, 3, dtype=torch.long),
        mask_ET=torch.tensor([[True, True, True], [True, False, False]]),
        rewards_E=torch.tensor([1.0, 0.0], dtype=torch.float64),
        truncated_E=torch.tensor([True, False]),
        **given,
    )


def log(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_what_is_said_of_the_tokens() -> None:
    now = log([[0.5, 0.25, 0.1], [0.4, 0.9, 0.9]])
    old = log([[0.4, 0.5, 0.1], [0.8, 0.1, 0.1]])
    step = batch(
        old_logprobs=old,
        rollout_logprobs=old + torch.tensor([[0.1, -0.3, 0.0], [0.0, 9.0, 9.0]], dtype=torch.float64),
        ref_logprobs=log([[1.0, 0.25, 0.2], [0.2, 0.1, 0.1]]),
        advantages=torch.tensor([[1.0, 1.0, 1.0], [-1.0, 7.0, 7.0]]),
        coefficients={"beta": 0.1},
    )
    entropy = torch.tensor([[1.0, 2.0, 3.0], [6.0, 99.0, 99.0]])
    found = measured(GRPO(beta=0.1), step, now, entropy)
    # Ratios 1.25, 0.5, 1 and 0.5. Clipped are 1.25 with A > 0 and the 0.5 of A < 0, not the 0.5 of A > 0.
    expected = {
        "logprob": (math.log(0.5) + math.log(0.25) + math.log(0.1) + math.log(0.4)) / 4,
        "entropy": 3.0,
        "ratio/mean": (1.25 + 0.5 + 1 + 0.5) / 4,
        "ratio/p99.9": 1.25,
        "clip_fraction": 0.5,
        "advantage/mean": 0.5,
        "advantage/abs": 1.0,
        "mismatch/mean": 0.1,
        "mismatch/max": 0.3,
        # By the trainer twice: |log 1.25 + log 0.5 + log 1| / 3 and |log 0.5|, more than the rollout's below.
        "ratio/noise": (abs(math.log(1.25) + math.log(0.5)) / 3 + math.log(2)) / 2,
        # r = π_ref/π = 2, 1, 2, 0.5 and k3 = r − log r − 1.
        "kl": (2 * (1 - math.log(2)) + 0 + (0.5 + math.log(2) - 1)) / 4,
    }
    assert found == pytest.approx(expected)
    # Between rollout and trainer: |0.1 − 0.3 + 0| / 3 and 0.
    expected["ratio/noise"] = 0.1 / 3
    assert measured(GRPO(beta=0.1), step, now, entropy, first_update=False) == pytest.approx(expected)


def measured(
    method: GRPO, step: Batch, now: torch.Tensor, entropy: torch.Tensor, *, first_update: bool = True
) -> dict[str, float]:
    """In two parts, a sequence each, as micro-batches come."""
    stats = TokenStats()
    for b in range(len(step)):
        part = step.select(torch.tensor([b]))
        outputs = Outputs(logprobs=now[[b]], entropy=entropy[[b]])
        stats.add(part, outputs, method.terms(outputs, part), first_update=first_update)
    return stats.metrics()


def test_once_the_weights_have_moved_a_ratio_is_no_noise() -> None:
    stats = TokenStats()
    now = log([[0.5, 0.25, 0.1], [0.4, 0.9, 0.9]])
    stats.add(batch(old_logprobs=now - 0.1), Outputs(logprobs=now), LossTerms(now), first_update=False)
    assert stats.metrics()["ratio/mean"] == pytest.approx(math.exp(0.1))
    assert "ratio/noise" not in stats.metrics()


def test_what_is_said_of_a_critic() -> None:
    """Errors 0, 1, 0 have a variance of 2/9, targets 1, 4, 1 one of 2."""
    step = with_given(
        batch(),
        mask_ET=torch.tensor([[True, True, False], [True, False, False]]),
        targets=torch.tensor([[1.0, 4.0, 99.0], [1.0, 99.0, 99.0]]),
    )
    outputs = Outputs(values=torch.tensor([[1.0, 3.0, -9.0], [1.0, -9.0, -9.0]]))
    stats = TokenStats()
    stats.add(step, outputs, LossTerms(torch.zeros(2, 3)))
    assert stats.metrics() == pytest.approx({"value/mean": 5 / 3, "value/explained_variance": 1 - (2 / 9) / 2})


def test_the_exact_kl_and_figures_of_sequences() -> None:
    """A figure that does not apply is NaN and left out; one that applies to nothing is not said."""
    step = batch()
    outputs = Outputs(exact_kl=torch.tensor([[0.1, 0.2, 0.3], [0.6, 9.0, 9.0]], dtype=torch.float64))
    figures = {"pair_accuracy": torch.tensor([0.5, NAN]), "nothing": torch.tensor([NAN, NAN])}
    stats = TokenStats()
    stats.add(step, outputs, LossTerms(torch.zeros(2), figures=figures))
    assert stats.metrics() == pytest.approx({"kl": 0.3, "pair_accuracy": 0.5})


def test_the_ratios_999th_per_mille_is_the_next_ratio_above() -> None:
    ratios = torch.ones(1, 2000, dtype=torch.float64)
    ratios[0, 10:13] = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)
    wide = make_batch(
        prefixes=(torch.tensor([1]),),
        group_E=torch.tensor([0]),
        tokens_ET=torch.zeros(1, 2000, dtype=torch.long),
        mask_ET=torch.ones(1, 2000, dtype=torch.bool),
        truncated_E=torch.tensor([True]),
        old_logprobs=torch.zeros(1, 2000, dtype=torch.float64),
        advantages=torch.ones(1, 2000),
    )
    found = measured(GRPO(), wide, ratios.log(), torch.zeros(1, 2000))
    # Place 0.999 · 1999 = 1997.001 of 0 … 1999 lies between the last three: 3 at 1997 and 4 at 1998.
    assert found["ratio/p99.9"] == pytest.approx(4.0)
    assert found["clip_fraction"] == pytest.approx(3 / 2000)


def test_what_was_not_computed_is_not_said() -> None:
    stats = TokenStats()
    now = log([[0.5, 0.25, 0.1], [0.4, 0.9, 0.9]])
    step = batch(old_logprobs=now, advantages=torch.ones(2, 3))
    outputs = Outputs(logprobs=now)
    stats.add(step, outputs, GRPO().terms(outputs, step))
    said = stats.metrics()
    assert not {"kl", "mismatch/mean", "entropy", "value/mean"} & said.keys()
    assert TokenStats().metrics() == {}


def test_completions_become_a_batch() -> None:
    """Padded on the right, what a tool wrote and what has no score not trained on."""
    tool = single_turn(
        (1, 2), (7, 8, 9), "", loss_mask=(True, False, True), logprobs=(-0.5, -0.25, -1.0), versions=(0, 0, 0)
    )

    def plain(prefix_ids: tuple[int, ...]) -> Trajectory:
        return single_turn(prefix_ids, (6,), "", logprobs=(-2.0,), versions=(0,))

    groups = [
        Group(Prompt("a", (1, 2), "", {}), (tool, plain((1, 2)))).scored([Score(0.5), Score(None, error="no")]),
        Group(Prompt("b", (3,), "", {}), (plain((3,)),)).scored([Score(-1.0)]),
    ]
    found = collate(groups)
    assert [p.tolist() for p in found.prefixes] == [[1, 2], [3]]
    assert found.samples.prefix_B.tolist() == [0, 0, 1]
    assert found.group_E.tolist() == [0, 0, 1]
    assert found.tokens_ET.tolist() == [[7, 8, 9], [6, 0, 0], [6, 0, 0]]
    assert found.mask_ET.int().tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert found.rewards_E.tolist() == pytest.approx([0.5, NAN, -1.0], nan_ok=True)
    assert found["rollout_logprobs"].tolist() == [[-0.5, -0.25, -1.0], [-2.0, 0, 0], [-2.0, 0, 0]]
    assert found.truncated_E.tolist() == [False, False, False]
    assert (found.completion_limit, collate(groups, completion_limit=9).completion_limit) == (3, 9)
    assert "step_rewards" not in found
    bare = collate([unscored(group) for group in groups])
    assert bare.mask_ET.int().tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert bare.rewards_E.isnan().all()


def test_step_rewards_stand_at_the_ends_of_their_steps() -> None:
    """Several at one token add up; a completion that failed has none."""
    steps = (StepValue(1, 0.5), StepValue(3, 1.0), StepValue(3, -4.0))
    groups = [
        group(
            "a",
            (completion(4), Score(0.5, steps=steps)),
            (completion(2, Finish.LENGTH), Score(1.0)),
            (completion(3), Score(None, steps=steps[:1], error="no")),
        )
    ]
    found = collate(groups)
    expected = [[NAN, 0.5, NAN, -3.0], [NAN] * 4, [NAN] * 4]
    assert torch.equal(found["step_rewards"].isnan(), torch.tensor(expected).isnan())
    assert found["step_rewards"].nansum(dim=1).tolist() == [-2.5, 0.0, 0.0]
    assert found.truncated_E.tolist() == [False, True, False]


def test_what_an_engine_did_beside_plain_decoding_is_a_metric_where_it_did_it() -> None:
    trajectory = single_turn((1, 2), (5, 6, 7), "abc", score=Score(1.0))
    groups = [Group(Prompt("p", (1, 2), "", {}), (trajectory,))]
    work = {"preemptions": 3, "evictions": 0, "reused_tokens": 40, "prefill_tokens": 2, "decoded_tokens": 3}
    metrics = sampling_metrics(Collected(groups, work=work), collate(groups))
    found = {name: value for name, value in metrics.items() if name.startswith("rollout/")}
    assert found == {"rollout/preemptions": 3, "rollout/reused_tokens": 40}


def test_metrics_of_each_source_that_gave_a_prompt() -> None:
    def of(source: str, *members: tuple[Trajectory, Score]) -> Group:
        made = group(source, *members)
        return replace(made, prompt=replace(made.prompt, source=source))

    trained = [
        of("math", (completion(2), Score(1.0, {"right": 1.0})), (completion(4), Score(0.0, {"right": 0.0}))),
        of("words", (completion(3), Score(0.5)), (completion(9, Finish.LENGTH), Score(0.25))),
    ]
    set_aside = [of("math", (completion(6), Score(1.0, {"right": 1.0})), (completion(8), Score(1.0, {"right": 1.0})))]
    found = sampling_metrics(Collected(trained, set_aside), collate(trained))
    math_only = {name.removeprefix("source/math/"): v for name, v in found.items() if name.startswith("source/math/")}
    words_only = {name.removeprefix("source/words/"): v for name, v in found.items() if name.startswith("source/words")}
    assert math_only == {
        "prompts": 2,
        "length/mean": 5.0,
        "length/max": 8.0,
        "truncated": 0.0,
        "reward/mean": 0.75,
        "reward/std": pytest.approx(math.sqrt((3 * 0.25**2 + 0.75**2) / 4)),
        "groups/zero_spread": 0.5,
        "reward/failed": 0.0,
        "reward/timed_out": 0.0,
        "reward/retries": 0,
        "reward/right": 0.75,
        "groups/set_aside": 0.5,
        "groups/trained": 1,
    }
    assert words_only == {
        "prompts": 1,
        "length/mean": 6.0,
        "length/max": 9.0,
        "truncated": 0.5,
        "reward/mean": 0.375,
        "reward/std": 0.125,
        "groups/zero_spread": 0.0,
        "reward/failed": 0.0,
        "reward/timed_out": 0.0,
        "reward/retries": 0,
        "groups/set_aside": 0.0,
        "groups/trained": 1,
    }
    overall = {name: value for name, value in found.items() if not name.startswith("source/")}
    assert overall["reward/mean"] == pytest.approx((1 + 0 + 0.5 + 0.25 + 1 + 1) / 6)
    unnamed = Collected(*([replace(g, prompt=replace(g.prompt, source="")) for g in gs] for gs in (trained, set_aside)))
    assert sampling_metrics(unnamed, collate(unnamed.groups)) == overall
