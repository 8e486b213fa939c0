"""What the catalogue says of a metric, whatever its name."""

import pytest

from sharpen.runs.metric_catalogue import GROUPS, catalogue, describe, describe_measure, find, is_end_of_interval


@pytest.mark.parametrize(
    ("name", "title", "unit", "direction", "group"),
    [
        ("reward/mean", "Reward", "reward", "up", "Reward"),
        ("reward/arithmetic", "Reward: arithmetic", "reward", "up", "Reward"),
        ("reward/failed", "Failed rewards", "share", "down", "Reward"),
        ("held_out/pass@64", "Held-out pass@64", "share", "up", "Held-out"),
        ("held_out/pass@8_low", "Held-out pass@8, lower end", "share", "up", "Held-out"),
        ("held_out/reward/a/b_high", "Held-out reward: a/b, upper end", "reward", "up", "Held-out"),
        ("held_out/math/maj@8", "Held-out maj@8: math", "share", "up", "Held-out"),
        ("held_out/math/reward/style_low", "Held-out reward: style: math, lower end", "reward", "up", "Held-out"),
        ("held_out/pair_accuracy", "Held-out pair accuracy", "share", "up", "Held-out"),
        ("held_out/math/loss", "Held-out loss: math", "nats", "down", "Held-out"),
        ("source/math/truncated", "Truncated: math", "share", "down", "Sources"),
        ("source/math/prompts", "Prompts: math", "prompts", "none", "Sources"),
        ("time/reward_s", "Time of the rewards", "s", "down", "Cost"),
        ("time/reward/style_s", "Time of style", "s", "down", "Cost"),
        ("critic/grad_norm", "Critic: gradient norm", "", "none", "Critic"),
    ],
)
def test_a_name_is_read_as_the_run_wrote_it(name: str, title: str, unit: str, direction: str, group: str) -> None:
    info = describe(name)
    assert (info.title, info.unit, info.direction, info.group) == (title, unit, direction, group)
    assert info.share == (unit == "share")
    assert info.meaning


@pytest.mark.parametrize(
    "name",
    ["", "/", "mine", "held_out/mine", "held_out//", "source/", "source/math/mine", "a" * 100_000],
)
def test_a_metric_of_a_users_own_has_its_name_and_nothing_else(name: str) -> None:
    info = describe(name)
    assert (info.title, info.unit, info.direction, info.meaning, info.share) == (name, "", "none", "", False)
    assert info.group in GROUPS
    assert find(name) is None


@pytest.mark.parametrize("name", ["held_out/" + "x_low" * 9_999, "source/" + "a/" * 9_999, "reward/" + "é\n" * 9_999])
def test_no_name_is_too_odd_to_be_described(name: str) -> None:
    assert describe(name).title


def test_meanings_are_plain_text_outside_the_documentation() -> None:
    for name, info in catalogue().items():
        assert not {"`", "]("} & set(info.meaning + info.normal), name
        assert "](" not in info.meaning + info.normal, name
    assert describe("kl").normal == (
        "rises slowly from 0; values in the thousands come from a single token far below the reference"
    )


def test_rewards_of_a_run_are_drawn_together_and_each_source_beside_the_others() -> None:
    assert describe("reward/a").panel == describe("reward/b").panel == "Reward parts"
    assert describe("reward/mean").panel == "Reward"
    assert describe("source/a/entropy").panel == describe("source/b/entropy").panel == "Entropy, by source"
    assert describe("mine").panel == "mine"


def test_places_follow_the_groups_and_the_catalogue() -> None:
    names = ["mine", "time/step_s", "source/a/kl", "reward/b", "reward/mean", "held_out/mine", "held_out/a/pass@1"]
    names += ["held_out/pair_accuracy", "held_out/pass@1"]
    assert sorted(names, key=lambda name: describe(name).place) == names[::-1]


def test_an_end_of_an_interval_is_one_of_a_measure_that_is_there() -> None:
    names = {"held_out/pass@1", "held_out/pass@1_low", "held_out/reward/too_low", "kl", "kl_low"}
    assert {name for name in names if is_end_of_interval(name, names)} == {"held_out/pass@1_low"}


def test_a_held_out_measure_is_described_without_its_prefix() -> None:
    assert describe_measure("math/pass@1") == describe("held_out/math/pass@1")
