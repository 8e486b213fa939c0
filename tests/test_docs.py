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
from sharpen.data.tasks import TASKS
from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.methods import METHODS
from sharpen.methods.page import methods_page
from sharpen.models.character_model import create_character_model
from sharpen.models.settings import LoraSettings
from sharpen.recipe.schema import Recipe
from sharpen.rewards import CallSettings, Gate
from sharpen.rewards.checking.cheats import CHEATS
from sharpen.rewards.registry import MODELS, OF_TOKENS, VERIFIERS, describe_rewards

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
TABLED = re.compile(r"^\| (`.*?) \|", re.MULTILINE)
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
    f"`{name}`": model
    for name, field in Recipe.model_fields.items()
    if name != "method" and (model := settings_of(field)) is not None
} | {"`model.lora`": LoraSettings}


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


def test_the_page_on_methods_is_what_the_code_prints() -> None:
    assert (DOCS / "methods.md").read_text() == methods_page(), "sharpen methods --markdown > docs/methods.md"


def test_the_table_of_the_readme_has_every_method_in_the_words_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", README.read_text(), re.MULTILINE)
    said = ((name, m.unified_view.source, m.unified_view.advantage, m.unified_view.loss) for name, m in METHODS.items())
    assert [row for row in rows if row[0] in METHODS] == list(said)


def test_links_within_the_page_on_methods_lead_to_a_heading() -> None:
    page = methods_page()
    heads = {head.strip("`").lower().replace(" ", "-") for head in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= heads


def half_flat(completion: str, prompt: str) -> float:
    """Tells completions of some prompts apart, and of others not."""
    return float(len(completion)) if prompt[0] in "01" else 1.0


def test_the_page_on_metrics_explains_every_metric(tmp_path: Path) -> None:
    explained = set(re.findall(r"`([^`]+)`", (DOCS / "metrics.md").read_text()))
    model = create_character_model(tmp_path / "m", alphabet=ALPHABET, hidden=16, intermediate=32, layers=1, heads=2)
    sizes = "&train_size=20&held_out_size=6&demonstration_size=20&preference_size=20&step_label_size=20"
    common: dict[str, Any] = {
        "quiet": True,
        "rollout": {"max_new_tokens": 6},
        "training": {"steps": 2, "prompts_per_step": 8},
        "evaluation": {"every": 2, "prompts": 4},
    }
    kl = {"beta": 0.1, "kl": {"target": 0.01}}
    methods: dict[str, dict[str, Any]] = {
        **{name: {} for name in METHODS},
        "grpo": {**kl, "updates_per_rollout": 2, "entropy_coef": 0.01},
        "dapo": {**kl, "max_rounds": 3},
        "ppo": {"form": "kl"},
        "rft": {"threshold": 0.0},
    }
    seen: set[str] = set()
    for name, settings in methods.items():
        reward = half_flat if METHODS[name]().needs_reward else None
        method = {"name": name, **settings}
        task = f"arithmetic?terms=2&digits=1{sizes}"
        run = sharpen.train(model, method, task, reward=reward, run=tmp_path / name, **common)
        seen |= {metric for row in run.metrics() for metric in row}
    for name in seen:
        if name.startswith("held_out/"):
            measure = re.sub(r"_(low|high)$", "", re.sub(r"@\d+", "@k", name))
            assert {measure, measure.removeprefix("held_out/")} & explained, name
    general = {name for name in seen if not name.startswith("held_out/")} - {"step", "reward/half_flat"}
    assert sorted(general - explained) == []
    # Whatever the page explains is there to be seen, so a name that is no more cannot stay.
    named = {name for line in TABLED.findall((DOCS / "metrics.md").read_text()) for name in re.findall("`(.+?)`", line)}
    examples = {"reward/<name>", "time/reward_s", "time/reward/<name>_s"}
    assert sorted(n for n in named - seen - examples if not n.startswith("held_out/")) == []


def test_every_reward_and_task_has_its_line() -> None:
    assert all(f"| `{name}` |" in (DOCS / "rewards.md").read_text() for name in describe_rewards())
    assert all(f"| `{name}` |" in (DOCS / "data.md").read_text() for name in TASKS)


def test_every_cheat_has_its_line_in_the_words_of_the_code() -> None:
    page = (DOCS / "rewards.md").read_text()
    assert all(f"| `{name}` | {cheat.why} |" in page for name, cheat in CHEATS.items())


def test_the_settings_of_rewards_are_those_of_the_code() -> None:
    page = (DOCS / "rewards.md").read_text()
    for part in (Gate, CallSettings):
        for setting, field in part.model_fields.items():
            (row,) = (line for line in page.splitlines() if line.startswith(f"| `{setting}` |"))
            assert yaml.safe_load(row.split("|")[2]) == json.loads(json.dumps(field.default)), setting
    settings: dict[str, type[BaseModel]] = {
        **VERIFIERS,
        **{name: model for name, (model, _) in (MODELS | OF_TOKENS).items()},
    }
    for name, model in settings.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{field.alias or setting}`" in line for setting, field in model.model_fields.items()), name


def test_links_between_pages_lead_somewhere() -> None:
    for page in (README, *DOCS.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
