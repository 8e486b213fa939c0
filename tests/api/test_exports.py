"""What ``import sharpen`` gives, how fast, and that editors see the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import sharpen
from sharpen.methods import METHODS
from sharpen.recipe.schema import Recipe
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.verifier import Verifier
from sharpen.settings import Settings


def seen_by_type_checkers() -> dict[str, str]:
    """Name → module of the imports under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(sharpen.__file__).read_text())
    [block] = (node for node in tree.body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_every_name_is_there_at_run_time_and_for_type_checkers() -> None:
    lazy = {name: sharpen._HOMES[name] for name in sharpen.__all__ if name != "SharpenError"}
    assert lazy == sharpen._HOMES == seen_by_type_checkers()
    assert set(sharpen.__all__) <= set(dir(sharpen))
    for name, home in lazy.items():
        assert getattr(sharpen, name) is getattr(import_module(home), name)


def test_every_method_and_verifier_and_section_is_there() -> None:
    exported = {getattr(sharpen, name) for name in sharpen.__all__}
    assert set(METHODS.values()) <= exported
    verifiers = {kind.described_by for kind in REWARDS.values() if issubclass(kind.described_by, Verifier)}
    assert verifiers
    assert verifiers <= exported
    sections = {field.annotation for field in Recipe.model_fields.values() if isinstance(field.annotation, type)}
    sections = {section for section in sections if issubclass(section, Settings)} - {Recipe}
    assert {section for section in sections if section.__name__ != "RewardCheckSettings"} <= exported


def test_importing_sharpen_imports_none_of_its_libraries() -> None:
    """They take seconds."""
    heavy = "{'torch', 'transformers', 'pydantic', 'pandas', 'matplotlib', 'rich', 'datasets', 'numpy', 'tqdm'}"
    code = f"import sharpen, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
