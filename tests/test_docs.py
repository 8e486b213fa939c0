"""The documentation says what the code does."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import sharpen
import tiny_turns
from sharpen.data import large
from sharpen.data.tasks import TASKS
from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.describe import settings_table
from sharpen.methods import GRPO, METHODS, SFT, Mixed
from sharpen.methods.page import methods_page
from sharpen.models.character_model import create_character_model
from sharpen.recipe.describe import TOP, Part, sections
from sharpen.rewards import CallSettings, Gate
from sharpen.rewards.checking.cheats import CHEATS
from sharpen.rewards.kinds import REWARDS, describe_rewards
from sharpen.runs.metric_catalogue import catalogue, describe, find, metrics_table
from sharpen.runs.metric_entries import ENTRIES
from test_rooms import ORDER, SOURCE

README = Path(__file__).parents[1] / "README.md"
CONTRIBUTING = README.parent / "CONTRIBUTING.md"
DOCS = README.parent / "docs"
ARCHITECTURE = DOCS / "architecture.md"


@pytest.mark.parametrize("part", sections(), ids=lambda part: part.name)
def test_the_page_on_recipes_has_each_section_as_the_code_describes_it(part: Part) -> None:
    head = "Top level" if part.name == TOP else f"`{part.name}`"
    texts = [text for text in (DOCS / "recipes.md").read_text().split("\n## ") if text.startswith(f"{head}\n")]
    assert len(texts) == 1, f"docs/recipes.md has no section {head}"
    assert settings_table(part.settings) in texts[0], f"its table: sharpen settings {part.name} --markdown"


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


class Imitating(GRPO):
    """With demonstrations as a second source."""

    name = "imitating"

    def mixed(self) -> Mixed:
        return Mixed(SFT(), 1.0, 1)


def half_flat(completion: str, prompt: str) -> float:
    """Tells completions of some prompts apart, and of others not."""
    return float(len(completion)) if prompt[0] in "01" else 1.0


def test_the_catalogue_has_every_metric_of_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # Conversations that fail now and then, and completions, in less memory than they would like.
    turns = {**tiny_turns.TURNS, "turns": "tiny_turns:failing_now_and_then", "max_reward_failures": 1.0}
    seen: set[str] = set()
    for name, crowded in {"talked": turns, "crowded": {"max_new_tokens": 28}}.items():
        limited = {**common, "rollout": {"max_new_tokens": 12, **crowded, "engine": {"kv_gib": 1.2e-5}}}
        task = f"arithmetic?terms=2&digits=1{sizes}"
        run = sharpen.train(model, "grpo", task, reward=half_flat, run=tmp_path / name, **limited)
        seen |= {metric for row in run.metric_rows() for metric in row}
    for name, settings in methods.items():
        reward = half_flat if METHODS[name]().needs_reward else None
        method = {"name": name, **settings}
        task = f"arithmetic?terms=2&digits=1{sizes}"
        writes = common if METHODS[name]().makes_a_policy else {**common, "rollout": {}}
        run = sharpen.train(model, method, task, reward=reward, run=tmp_path / name, **writes)
        seen |= {metric for row in run.metric_rows() for metric in row}
    stale = {**common, "rollout": {"max_new_tokens": 6, "lag": 1}}
    run = sharpen.train(
        model, {"name": "grpo", "tis_cap": 2.0}, task, reward=half_flat, run=tmp_path / "stale", **stale
    )
    seen |= {metric for row in run.metric_rows() for metric in row}
    rows = [{"prompt": "1+1=", "completion": "2"}]
    run = sharpen.train(
        model, Imitating(), task, reward=half_flat, run=tmp_path / "mixed", **common | {"data": {"mixed": rows}}
    )
    seen |= {metric for row in run.metric_rows() for metric in row}
    monkeypatch.setattr(large, "EAGER_ROWS", 2)
    rows = [{"prompt": "+" * (300 if i % 2 else 3), "completion": "2"} for i in range(8)]
    dropped = {"data": {"overlong": "drop"}, "training": common["training"], "quiet": True}
    run = sharpen.train(model, "sft", rows, run=tmp_path / "dropped", **dropped)
    seen |= {metric for row in run.metric_rows() for metric in row}
    assert sorted(name for name in seen if find(name) is None) == []
    # Whatever the catalogue has is there to be seen, so a name that is no more cannot stay.
    meanings = {info.meaning: name for name, info in catalogue().items()}
    assert len(meanings) == len(catalogue())
    # Completions are preempted only where they are long; here is one reward, one source and one completion a prompt.
    elsewhere = {
        "held_out/maj@k",
        "rollout/preemptions",
        "held_out/reward/<name>",
        "time/reward/<name>_s",
        "source/<name>/prompts",
    }
    assert sorted(set(meanings.values()) - {meanings.get(describe(name).meaning) for name in seen} - elsewhere) == []


@pytest.mark.parametrize("group", ENTRIES)
def test_the_page_on_metrics_has_the_table_of_each_group(group: str) -> None:
    _, _, after = (DOCS / "metrics.md").read_text().partition(f"\n### {group}\n")
    table = after.partition("\n#")[0]
    assert metrics_table(group) in table, f"the table of {group}: sharpen metrics --markdown"


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
    for name, model in ((name, kind.settings) for name, kind in REWARDS.items()):
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{field.alias or setting}`" in line for setting, field in model.model_fields.items()), name


def code_location(path: str) -> Path:
    """A path as the page on the architecture writes it: within the package, or of the repository."""
    return next((root / path for root in (SOURCE, README.parent) if (root / path).exists()), SOURCE / path)


def defines(body: list[ast.stmt], name: str) -> bool:
    """Whether statements define a name; ``Class.method`` is looked for within the class."""
    first, _, rest = name.partition(".")
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == first:
            return not rest or defines(node.body, rest)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not rest and any(isinstance(target, ast.Name) and target.id == first for target in targets):
            return True
    return False


@pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)
def test_every_file_and_symbol_that_a_page_on_the_code_names_exists(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"(?<![\w/.])([\w/]+\.py)(?::([\w.]*\w))?", text)
    folders = re.findall(r"(?<![\w/.])((?:\w+/)+)(?![\w.<])", text)
    assert named
    assert folders
    assert [path for path in folders if not code_location(path).is_dir()] == []
    assert [path for path, _ in named if not code_location(path).is_file()] == []
    missing = [
        f"{path}:{symbol}"
        for path, symbol in named
        if symbol and not defines(ast.parse(code_location(path).read_text()).body, symbol)
    ]
    assert missing == []


def test_a_symbol_that_is_not_there_is_noticed() -> None:
    body = ast.parse("A: int = 1\nclass C:\n    x: int\n    def m(self): pass\n").body
    assert [defines(body, name) for name in ("A", "C", "C.m", "C.x", "B", "m", "C.y", "A.x")] == [True] * 4 + [
        False
    ] * 4


def test_the_page_on_the_architecture_has_the_packages_in_their_order() -> None:
    part = ARCHITECTURE.read_text().split("\n## The packages")[1].split("\n## ")[0]
    lines = re.findall(r"^    ([\w, ]+?)(?: {2,}.*)?$", part, re.MULTILINE)
    assert [set(line.split(", ")) for line in lines] == [set(rooms) for rooms in reversed(ORDER)]


def test_the_page_on_the_architecture_has_the_diagram_within_100_columns() -> None:
    assert max(len(line) for line in ARCHITECTURE.read_text().splitlines() if line.startswith("    ")) <= 100


def test_links_between_pages_lead_somewhere() -> None:
    for page in (README, CONTRIBUTING, *DOCS.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
