"""``sharpen methods``: what people and programs read about the methods."""

import json
import re
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.methods import METHODS
from sharpen.methods.describe import all_differences, differences, settings
from sharpen.settings import Settings


def said(*arguments: str, columns: int = 100) -> str:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def words(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def as_json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(name, "--json"))
    return found


def setting(name: str, key: str) -> dict[str, Any]:
    [found] = [s for s in as_json(name)["settings"] if s["name"] == key]
    return dict(found)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_every_method_has_its_line_in_a_table_as_wide_as_the_terminal(columns: int) -> None:
    lines = said(columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    begun = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert [word for word in begun if word in METHODS] == list(METHODS)


def test_a_line_is_source_reward_advantage_loss_and_gradient_coefficient() -> None:
    page = said(columns=120)
    block = words(page[page.index("\ngrpo ") : page.index("\ndr_grpo ")])
    for part in ("current policy", "group z-score", "× any, per completion", "× clipped surrogate", "DeepSeekMath"):
        assert part in block
    assert "unclipped · ρ · Â +" in block
    assert "β(π_ref/π − 1)" in block


def test_json_of_all_methods_has_the_rows_of_the_code_in_order() -> None:
    found = json.loads(said("--json"))
    assert [row["name"] for row in found] == list(METHODS)
    grpo = next(row for row in found if row["name"] == "grpo")
    assert grpo["gradient_coefficient"] == "unclipped · ρ · Â + β(π_ref/π − 1)"
    assert grpo["paper"].endswith("arXiv 2402.03300")
    assert {key for row in found for key in row} == {
        *("name", "source", "reward", "advantage", "loss", "gradient_coefficient", "paper"),
        *("objective", "parent", "settings", "differences"),
    }


def test_one_method_has_its_equation_and_every_setting_nested_ones_by_their_path() -> None:
    found = as_json("grpo")
    assert "min[ρ Â, clip(ρ, 1 − ε_low, 1 + ε_high) Â] − β (r − log r − 1)" in found["objective"]
    names = [s["name"] for s in found["settings"]]
    fields = [
        f"kl.{inner}" if name == "kl" else name
        for name, field in METHODS["grpo"].model_fields.items()
        for inner in (type(field.default).model_fields if name == "kl" else [name])
    ]
    assert sorted(names) == sorted(fields)
    assert len(names) == len(set(names))
    # A method's own come first, then those that it shares with more and more methods.
    assert (
        names.index("eps_low") < names.index("group_size") < names.index("entropy_coef") < names.index("kl.estimator")
    )


def test_a_setting_says_its_values_its_default_and_what_it_means() -> None:
    assert setting("grpo", "eps_low") == {
        "name": "eps_low",
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "default": 0.2,
        "meaning": "The ratio is clipped at 1 − eps_low where the advantage is negative; 1: never.",
    }
    assert setting("ppo", "kl.estimator")["enum"] == ["k1", "k2", "k3", "weighted_k3", "exact"]
    values = {s.name: s.values for s in settings(METHODS["grpo"])}
    assert values["eps_low"] == "number > 0 and ≤ 1"
    assert values["std"] == "group, batch, none"
    assert values["constant_length"] == "whole number ≥ 1 or null"
    assert values["mask_truncated"] == "true, false"


def test_a_preset_says_what_it_changes_and_in_what() -> None:
    def changes(name: str) -> dict[str, tuple[Any, Any]]:
        return {s["name"]: (s["instead_of"], s["default"]) for s in as_json(name)["settings"] if "instead_of" in s}

    assert as_json("dr_grpo")["parent"] == "grpo"
    assert changes("dr_grpo") == {"std": ("group", "none"), "reduction": ("per_sequence", "constant")}
    assert changes("dapo") == {
        "eps_high": (0.2, 0.28),
        "reduction": ("per_sequence", "tokens_of_group"),
        "dynamic_sampling": (False, True),
        "overlong_share": (0.0, 0.2),
    }
    # PPO has the policy methods' settings with other defaults, down to those of its KL.
    assert as_json("ppo")["parent"] is None
    assert changes("ppo") == {
        "beta": (0.0, 0.02),
        "kl.estimator": ("k3", "k1"),
        "kl.placement": ("loss", "reward"),
        "minibatches": (1, 4),
    }
    assert changes("rloo") == changes("grpo") == {}
    shown = words(said("dapo"))
    assert "dapo a form of grpo" in shown
    assert "overlong_share 0.2 instead of 0.0" in shown
    assert "true instead of false" in shown


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_every_method_has_a_meaning_and_is_shown_whole(name: str) -> None:
    shown = said(name, columns=100)
    assert max(map(len, shown.splitlines())) <= 100
    printed = shown.split()
    for s in settings(METHODS[name]):
        assert s.meaning.endswith("."), s.name
        assert s.name in printed
        assert set(s.meaning.split()) <= set(printed), s.name
        assert set(s.values.split()) <= set(printed), s.name


def test_a_method_says_where_it_and_what_it_shares_differ_from_other_libraries() -> None:
    found = as_json("dapo")["differences"]
    assert list(found) == ["dapo", "grpo", "every group method", "every policy method", "kl"]
    shown = words(said("dapo"))
    assert "Other libraries (TRL 1.16.0, verl 0.9.1, OpenRLHF 0.11.2): dapo TRL's loss_type dapo is a" in shown
    assert all(words(line.replace("`", "")) in shown for lines in found.values() for line in lines)


OWNERS = list(dict.fromkeys(c for m in METHODS.values() for c in all_differences(m)))


@pytest.mark.parametrize("owner", OWNERS, ids=lambda c: c.__name__)
def test_defaults_in_the_differences_are_those_of_the_code(owner: type[Settings]) -> None:
    for name, value in re.findall(r"`(\w+): (\S+)`", " ".join(differences(owner))):
        assert owner.model_fields[name].default == yaml.safe_load(value), name


def test_an_unknown_method_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["methods", "grop"])
    assert result.exit_code == 2
    assert "unknown method `grop`. Did you mean `grpo`?" in words(result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("--markdown", "grpo"), ("--markdown", "--json")])
def test_the_page_is_of_all_methods_and_is_no_json(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["methods", *arguments])
    assert result.exit_code == 2
    assert "--markdown" in result.stderr
