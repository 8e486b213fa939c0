"""What the settings of a method say: presets, refusals, warnings."""

import re
from typing import Any

import pytest
from hand_made import rollout

from sharpen.methods import GRPO, METHODS, resolve_method
from sharpen.methods.coefficient import AdaptiveCoefficient
from sharpen.methods.kl import KL


def differences(name: str, parent: str) -> dict[str, Any]:
    ours, theirs = METHODS[name]().model_dump(), METHODS[parent]().model_dump()
    assert ours.keys() == theirs.keys()
    return {key: value for key, value in ours.items() if value != theirs[key] and key != "name"}


PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("dr_grpo", "grpo"): {"std": "none", "reduction": "constant"},
    ("dapo", "grpo"): {
        "eps_high": 0.28,
        "reduction": "tokens_of_group",
        "dynamic_sampling": True,
        "overlong_share": 0.2,
    },
    ("rloo", "reinforce"): {},
    ("reinforce_plus_plus", "reinforce"): {
        "beta": 0.01,
        "kl": KL(estimator="k1", placement="reward").model_dump(),
        "group_size": 1,
        "baseline": "whitened",
        "reduction": "tokens_of_batch",
        "clip": 0.2,
    },
}


@pytest.mark.parametrize(("name", "parent"), PRESETS)
def test_a_preset_is_its_parent_but_for_what_it_names(name: str, parent: str) -> None:
    assert differences(name, parent) == PRESETS[name, parent]
    own = METHODS[name].model_fields
    assert {key: field for key, field in own.items() if key not in METHODS[parent].model_fields} == {}


PAPERS: dict[str, dict[str, Any]] = {
    "grpo": {"eps_low": 0.2, "eps_high": 0.2, "std": "group", "ddof": 1, "reduction": "per_sequence"},
    "gspo": {"eps_low": 3e-4, "eps_high": 4e-4, "form": "sequence", "minibatches": 4, "beta": 0.0},
    "ppo": {"beta": 0.02, "gamma": 1.0, "eps_low": 0.2, "eps_high": 0.2, "value_target": "lambda", "form": "clip"},
    "dpo": {"beta": 0.1, "form": "sigmoid", "label_smoothing": 0.0},
    "reinforce": {"baseline": "leave_one_out", "reduction": "sum"},
    "reward_model": {"margin": False, "noise": 0.0, "centre": True},
    "cispo": {"eps_low": None},
}


@pytest.mark.parametrize("name", PAPERS)
def test_defaults_are_those_of_the_papers(name: str) -> None:
    settings = METHODS[name]().model_dump()
    assert {key: settings[key] for key in PAPERS[name]} == PAPERS[name]


def test_the_reference_is_fixed_unless_told_otherwise() -> None:
    assert KL().reference == "fixed"
    assert all(method().kl_settings.reference == "fixed" for method in METHODS.values())
    assert (KL().estimator, KL().placement) == ("k3", "loss")
    for name in ("ppo", "reinforce_plus_plus"):
        assert METHODS[name]().kl_settings == KL(estimator="k1", placement="reward")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "grpo", "group_size": 1}, "group_size 1 leaves every advantage at 0; use at least 2"),
    (
        {"name": "grpo", "supervision": "process", "std": "batch"},
        "supervision process needs std group or none, not batch",
    ),
    (
        {"name": "gspo", "supervision": "own_step", "beta": 0.1, "kl": {"placement": "reward"}},
        "with supervision own_step, kl.placement must be loss",
    ),
    ({"name": "dapo", "supervision": "process"}, "with supervision process, overlong_share must be 0"),
    (
        {"name": "rloo", "group_size": 1},
        "baseline leave_one_out compares completions of a prompt: group_size must be 2 or more",
    ),
    ({"name": "reinforce", "baseline": "group_mean", "group_size": 1}, "baseline group_mean compares completions"),
    ({"name": "rloo", "minibatches": 2}, "with several updates per rollout the policy is no longer the one that"),
    ({"name": "reinforce", "updates_per_rollout": 2}, "set `clip` (0.2, say) to use the clipped ratio"),
    (
        {"name": "grpo", "kl": {"estimator": "weighted_k3", "placement": "reward"}},
        "`kl`: weighted_k3 is for the loss: in the reward its ratio is always 1, so use k3",
    ),
    ({"name": "grpo", "kl": {"estimator": "k4"}}, "`kl.estimator`: Input should be 'k1', 'k2', 'k3'"),
    ({"name": "dpo", "label_smoothing": 0.5}, "`label_smoothing`: Input should be less than 0.5 (given: 0.5)"),
    ({"name": "ppo", "lam": 1.5}, "`lam`: Input should be less than or equal to 1 (given: 1.5)"),
    ({"name": "grpo", "dual_clip": 1.0}, "`dual_clip`: Input should be greater than 1 (given: 1.0)"),
    ({"name": "dpo", "betta": 1}, "method dpo: unknown setting `betta`. Did you mean `beta`?"),
    ({"name": "gropo"}, "unknown method `gropo`. Did you mean `grpo`? Known: sft, rft,"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_what_cannot_work_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_method(spec)


def test_settings_that_work_only_together_are_accepted_together() -> None:
    assert resolve_method({"name": "reinforce", "group_size": 1, "baseline": "none"})
    assert resolve_method({"name": "rloo", "minibatches": 2, "clip": 0.2}).passes_and_minibatches == (1, 2)
    assert resolve_method({"name": "dapo", "supervision": "process", "overlong_share": 0})


@pytest.mark.parametrize("supervision", ["process", "own_step"])
def test_a_rollout_in_which_no_step_has_a_reward_teaches_nothing(supervision: str) -> None:
    method = resolve_method({"name": "grpo", "supervision": supervision})
    assert method.needs_steps
    assert method.advantages(rollout([[1, 0]], [[1, 2]])).abs().sum() == 0


@pytest.mark.parametrize("name", ["ppo", "reinforce_plus_plus"])
def test_a_part_of_the_kl_section_leaves_the_rest_as_the_method_has_it(name: str) -> None:
    """As a recipe gives it, and `method.kl.target=0.1` on the command line."""
    method = resolve_method({"name": name, "kl": {"target": 0.1}})
    assert (method.kl.estimator, method.kl.placement, method.kl.target) == ("k1", "reward", 0.1)
    assert resolve_method({"name": "grpo", "beta": 1, "kl": {"target": 0.1}}).kl == KL(target=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "gspo", "supervision": "process"}, "supervision process needs form token"),
        ({"name": "grpo", "tis_cap": 0.5}, "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_method(settings)


BETA: dict[str, Any] = {"beta": 0.1}

NO_EFFECT: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("grpo", {"kl": {"target": 0.1}}, BETA, "`kl` has no effect: only with beta above 0"),
    ("ppo", {"beta": 0, "kl": {"target": 0.1}}, BETA, "`kl` has no effect: only with beta above 0"),
    ("grpo", {**BETA, "kl": {"rule": "double"}}, {"kl": {"rule": "double", "target": 0.1}}, "`kl.rule` has no effect"),
    ("ppo", {"kl": {"horizon": 9}}, {"kl": {"horizon": 9, "target": 0.1}}, "`kl.horizon` has no effect: only with"),
    (
        "grpo",
        {**BETA, "kl": {"horizon": 9, "target": 0.1, "rule": "double"}},
        {"kl": {"horizon": 9, "target": 0.1}},
        "`kl.horizon` has no effect: only with target and rule proportional",
    ),
    (
        "grpo",
        {**BETA, "kl": {"path": "m", "reference": "average"}},
        {"kl": {"path": "m"}},
        "`kl.path` has no effect: only with reference fixed",
    ),
    (
        "grpo",
        {**BETA, "kl": {"reset_every": 9, "reference": "average"}},
        {"kl": {"reset_every": 9, "reference": "reset"}},
        "`kl.reset_every` has no effect: only with reference reset",
    ),
    (
        "gspo",
        {**BETA, "kl": {"decay": 0.5, "reference": "reset"}},
        {"kl": {"decay": 0.5, "reference": "average"}},
        "`kl.decay` has no effect: only with reference average",
    ),
    ("grpo", {"old": "rollout", "tis_cap": 2}, {"old": "learner"}, "`tis_cap` has no effect: only with old learner"),
    ("grpo", {"max_rounds": 3}, {"dynamic_sampling": True}, "`max_rounds` has no effect: only with dynamic_sampling"),
    ("dapo", {"max_rounds": 3, "dynamic_sampling": False}, {"dynamic_sampling": True}, "`max_rounds` has no effect"),
    (
        "grpo",
        {"std": "none", "std_eps": 1e-4},
        {"std": "group"},
        "`std_eps` has no effect: only with std group",
    ),
    ("dr_grpo", {"ddof": 0}, {"std": "batch"}, "`ddof` has no effect: only with std group or batch"),
    ("grpo", {"constant_length": 8}, {"reduction": "constant"}, "`constant_length` has no effect: only with reduction"),
    ("rloo", {"dual_clip": 3}, {"clip": 0.2}, "`dual_clip` has no effect: only with clip"),
    ("reinforce", {"old": "rollout"}, {"clip": 0.2}, "`old` has no effect: only with clip"),
    ("ppo", {"form": "kl", "dual_clip": 3}, {"form": "clip"}, "`dual_clip` has no effect: only with form clip"),
    ("ppo", {"form": "kl", "eps_low": 0.1}, {"form": "clip"}, "`eps_low` has no effect: only with form clip"),
    ("ppo", {"form": "kl", "eps_high": 0.1}, {"form": "clip"}, "`eps_high` has no effect: only with form clip"),
    ("ppo", {"old_kl_coef": 2}, {"form": "kl"}, "`old_kl_coef` has no effect: only with form kl"),
    ("ppo", {"old_kl_target": 2}, {"form": "kl"}, "`old_kl_target` has no effect: only with form kl"),
    (
        "ppo",
        {"critic": "shared", "critic_path": "m"},
        {"critic": "own"},
        "`critic_path` has no effect: only",
    ),
    (
        "ppo",
        {"critic": "shared", "critic_learning_rate_ratio": 2},
        {"critic": "own"},
        "`critic_learning_rate_ratio` has no effect: only with critic own",
    ),
    ("ppo", {"value_coef": 0.5}, {"critic": "shared"}, "`value_coef` has no effect: only with critic shared"),
    ("dpo", {"form": "ipo", "label_smoothing": 0.1}, {"form": "sigmoid"}, "`label_smoothing` has no effect: only with"),
    ("rft", {"group_size": 2, "at_most": 3}, {"group_size": 4}, "`at_most` has no effect: only below group_size"),
    ("online_rft", {"at_most": 8}, {"group_size": 9}, "`at_most` has no effect: only below group_size"),
]
"""A method, settings one of which has no effect, what gives it one, and what is said."""


@pytest.mark.parametrize(("name", "settings", "remedy", "message"), NO_EFFECT)
def test_a_setting_without_effect_is_an_error_and_the_same_with_one_is_not(
    name: str, settings: dict[str, Any], remedy: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"method {name}: {message}")):
        resolve_method({"name": name, **settings})
    resolve_method({"name": name, **settings, **remedy})


def test_each_setting_that_may_have_no_effect_is_tried() -> None:
    tried = {re.findall("`(.*?)`", message)[0].removeprefix("kl.") for _, _, _, message in NO_EFFECT}
    kinds = [KL, *METHODS.values()]
    assert tried == {effect.setting for kind in kinds for effect in kind.all_effects()}


def test_everything_without_effect_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"`max_rounds` has no effect: .*; `constant_length` has no effect: "):
        resolve_method({"name": "grpo", "max_rounds": 3, "constant_length": 8})


def test_the_clip_of_deepseek_r1_is_possible() -> None:
    """Its ε is 10, and no ratio is below 0: a lower bound of −9 binds as little as one of 0."""
    method = resolve_method({"name": "grpo", "eps_low": 1, "eps_high": 10})
    assert (method.eps_low, method.eps_high) == (1, 10)
    with pytest.raises(ValueError, match="`eps_low`: Input should be less than or equal to 1"):
        resolve_method({"name": "grpo", "eps_low": 10, "eps_high": 10})


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_comes_back_from_what_a_recipe_says_of_it(method: Any) -> None:
    assert resolve_method(method().model_dump()) == method()
    assert method().model_dump()["name"] == method.name


# Warnings


def test_gspo_warns_where_rounding_alone_comes_near_its_bounds() -> None:
    """Half of the narrower bound: 1.5e-4 by default."""
    gspo = METHODS["gspo"]()
    assert gspo.warnings({"ratio/noise": 1.4e-4}) == []
    assert gspo.warnings({}) == []
    [warning] = gspo.warnings({"ratio/noise": 1.6e-4})
    assert warning.startswith("rounding alone changes the log of a completion's ratio by 1.6e-04 on average")
    assert "the clip range is 3.0e-04" in warning
    wide = resolve_method({"name": "gspo", "eps_low": 0.1, "eps_high": 0.01})
    assert wide.warnings({"ratio/noise": 4.9e-3}) == []
    assert len(wide.warnings({"ratio/noise": 5.1e-3})) == 1
    assert METHODS["grpo"]().warnings({"ratio/noise": 9.0}) == []


def test_k1_in_the_loss_is_warned_of() -> None:
    """Its expected gradient is 0."""
    [warning] = GRPO(beta=0.1, kl=KL(estimator="k1")).warnings({})
    assert warning.startswith("the expected gradient of k1 in the loss is zero")
    for quiet in (
        GRPO(beta=0.1, kl=KL(estimator="k1", placement="reward")),
        GRPO(beta=0.1),
    ):
        assert quiet.warnings({}) == []
    both = resolve_method({"name": "gspo", "beta": 0.1, "kl": {"estimator": "k1"}})
    assert len(both.warnings({"ratio/noise": 1.0})) == 2


# Strengths that change


def test_warming_up_rises_linearly_to_the_level() -> None:
    warmed = AdaptiveCoefficient(0.4, warmup_steps=4)
    assert [warmed.at(step, 0.4) for step in range(1, 7)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert [warmed.at(step, 0.8) for step in (1, 9)] == pytest.approx([0.2, 0.8])
    assert AdaptiveCoefficient(0.4).at(1, 0.4) == 0.4


@pytest.mark.parametrize(
    ("measured", "expected"), [(0.0066, 0.2), (0.0067, 0.4), (0.01, 0.4), (0.0149, 0.4), (0.0151, 0.8), (9.0, 0.8)]
)
def test_schulmans_rule_halves_and_doubles(measured: float, expected: float) -> None:
    assert AdaptiveCoefficient(1.0, target=0.01, rule="double").adapted(0.4, measured, 64) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(0.1, 0.4), (0.11, 0.4 * (1 + 0.1 * 0.05)), (5.0, 0.4 * 1.01), (0.09, 0.4 * 0.995), (0.0, 0.4 * 0.99)],
)
def test_zieglers_rule_is_proportional_and_clipped_at_a_fifth(measured: float, expected: float) -> None:
    """Over a horizon of 1000 completions, of which 50 were drawn."""
    rule = AdaptiveCoefficient(1.0, target=0.1, rule="proportional", horizon=1000)
    assert rule.adapted(0.4, measured, 50) == pytest.approx(expected)


def test_zieglers_rule_never_turns_a_penalty_into_a_reward() -> None:
    """Of 1024 completions over a horizon of 100, a fifth is taken off at most, not two of the strength."""
    rule = AdaptiveCoefficient(1.0, target=0.1, rule="proportional", horizon=100)
    assert rule.adapted(0.4, 0.0, 1024) == pytest.approx(0.4 * 0.8)


def test_without_a_target_a_strength_stays() -> None:
    assert AdaptiveCoefficient(1.0).adapted(0.4, 9.0, 50) == 0.4


def test_the_settings_of_the_penalty_reach_its_strength() -> None:
    kl = KL(warmup_steps=3, target=0.2, rule="double")
    assert GRPO(beta=0.1, kl=kl).coefficients() == {"beta": AdaptiveCoefficient(0.1, 3, 0.2, "double", 10_000, "kl")}
    kl = KL(target=0.2, horizon=7)
    assert GRPO(beta=0.1, kl=kl).coefficients() == {"beta": AdaptiveCoefficient(0.1, 0, 0.2, "proportional", 7, "kl")}
    assert GRPO(beta=0.0).coefficients() == {}
    form_kl = resolve_method({"name": "ppo", "form": "kl", "old_kl_coef": 2, "old_kl_target": 0.03})
    assert form_kl.coefficients()["old_kl"] == AdaptiveCoefficient(2, 0, 0.03, "double", measured_by="kl_old")
    assert set(METHODS["ppo"]().coefficients()) == {"beta"}
