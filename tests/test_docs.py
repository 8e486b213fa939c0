"""The documentation says what the code does."""

import json
import re
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import sharpen
from sharpen.config import Recipe
from sharpen.data.tasks import TASKS
from sharpen.methods import GRPO, METHODS
from sharpen.models.embedded import create_embedded
from sharpen.rewards.registry import VERIFIERS

DOCS = Path(__file__).parents[1] / "docs"
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \|", re.MULTILINE)


def section(name: str) -> dict[str, str]:
    """Setting → what stands in the column of defaults, in one section of the page on recipes."""
    heads = [part for part in (DOCS / "recipes.md").read_text().split("\n## ") if part.startswith(name)]
    assert len(heads) == 1, f"docs/recipes.md has no section {name}"
    return dict(ROW.findall(heads[0]))


def settings_of(field: Any) -> type[BaseModel] | None:
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


SECTIONS: dict[str, type[BaseModel]] = {
    **{
        f"`{name}`": model
        for name, field in Recipe.model_fields.items()
        if name != "method" and (model := settings_of(field)) is not None
    },
    **{f"`method`, named `{name}`": method for name, method in METHODS.items()},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_on_recipes_has_every_setting_with_its_default(name: str) -> None:
    documented = section(name)
    fields = SECTIONS[name].model_fields
    assert list(documented) == list(fields)
    for key, field in fields.items():
        default = field.get_default(call_default_factory=True)
        if default is PydanticUndefined:
            assert documented[key] == "required", key
        elif isinstance(default, float):
            assert float(documented[key]) == default, key
        else:
            assert yaml.safe_load(documented[key]) == json.loads(json.dumps(default)), key


def test_the_page_on_recipes_has_every_section() -> None:
    documented = (DOCS / "recipes.md").read_text().split("\n## ")[1]
    assert all(f"`{name}`" in documented for name in Recipe.model_fields)


def test_the_page_on_metrics_explains_every_metric(tmp_path: Path) -> None:
    explained = re.findall(r"`([^`]+)`", (DOCS / "metrics.md").read_text())
    model = create_embedded(tmp_path / "m", alphabet="0123456789+=", hidden=16, intermediate=32, layers=1, heads=2)
    rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(4)]

    def digits(completion: str) -> float:
        return float(len(completion))

    common: dict[str, Any] = {
        "reward": digits,
        "held_out": rows[:4],
        "quiet": True,
        "rollout": {"max_new_tokens": 4},
        "training": {"steps": 1},
        "evaluation": {"every": 1},
    }
    grpo = GRPO(group_size=4, beta=0.1, updates_per_rollout=2)
    seen: set[str] = set()
    for method in (grpo, "sft"):
        run = sharpen.train(model, method, rows, run=tmp_path / str(len(seen)), **common)
        seen |= {name for row in run.metrics() for name in row}
    general = {name for name in seen if not name.startswith("held_out/")} - {"step", "reward/digits"}
    assert {"kl", "ratio/p99.9", "mismatch/max", "entropy"} <= general
    assert sorted(general - set(explained)) == []


def test_every_reward_and_task_has_its_line() -> None:
    assert all(f"| `{name}` |" in (DOCS / "rewards.md").read_text() for name in VERIFIERS)
    assert all(f"| `{name}` |" in (DOCS / "data.md").read_text() for name in TASKS)


def test_the_settings_of_rewards_are_those_of_the_code() -> None:
    page = (DOCS / "rewards.md").read_text()
    for name, verifier in VERIFIERS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{setting}`" in line for setting in verifier.model_fields), name


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
