"""Names of users' classes and functions: found by name, and the way back from an object to its name."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.data.rows import read_rows
from sharpen.errors import RecipeError, RewardError
from sharpen.registry import Registry, load_named, own_name
from sharpen.rewards import resolve_reward
from sharpen.rollout.interaction import TURNS
from sharpen.scaffold.source import find_source

MODULE = """
import functools
from pydantic import BaseModel


def doubled(function):
    @functools.wraps(function)
    def twice(*arguments):
        return 2 * function(*arguments)
    return twice


def plain(text):
    return len(text)


@doubled
def decorated(text):
    return len(text)


wrapped_again = doubled(plain)


class Part(BaseModel):
    inner: "Inner | None" = None

    class Kind:
        pass

    def measure(self, text):
        return 0.0


class Inner(BaseModel):
    size: int = 3
"""

SCRIPT = """
import json
import sharpen
from parts import plain
from sharpen.registry import own_name

def mine(text):
    return 1.0

def local():
    def inner(text):
        return 1.0
    return inner

if __name__ == "__main__":
    print(json.dumps([own_name(mine), own_name(plain), own_name(local()), own_name(lambda text: 1.0)]))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "parts.py"
    path.write_text(MODULE)
    return path


def load(file: Path, name: str) -> Any:
    return load_named(f"{file}:{name}", "part", RecipeError)


@pytest.mark.parametrize("name", ["plain", "decorated", "Part", "Part.Kind"])
def test_a_name_leads_to_an_object_and_back(file: Path, name: str) -> None:
    found = load(file, name)
    assert own_name(found) == f"{file}:{name}"
    assert load(file, name) is found


def test_settings_in_a_file_resolve_their_annotations(file: Path) -> None:
    assert load(file, "Part").model_validate({"inner": {}}).inner.size == 3


def test_what_a_name_would_not_give_again_has_none(file: Path) -> None:
    plain, part = load(file, "plain"), load(file, "Part")

    def local(text: str) -> float:
        return 0.0

    bound = part().measure
    alike: Callable[..., Any] = load(file, "wrapped_again")  # is called `plain`, and is another function
    for thing in (alike, bound, part(), functools.partial(plain), local, lambda text: 0.0, 3):
        assert own_name(thing) is None


def test_a_file_that_has_changed_is_read_again(file: Path) -> None:
    before = load(file, "plain")
    file.write_text(MODULE.replace("return len(text)", "return 7"))
    after = load(file, "plain")
    assert (before("ab"), after("ab")) == (2, 7)
    # The older one is no longer what its name gives.
    assert own_name(before) is None
    assert own_name(after) == f"{file}:plain"


@pytest.mark.parametrize("module", [False, True])
def test_a_script_names_its_own_and_its_neighbours_functions(file: Path, module: bool, tmp_path: Path) -> None:
    """A script's functions are found in its file, and those of a package by the name of their module."""
    folder = tmp_path / "package" if module else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    started = ["-m", "package.script"] if module else [str(folder / "script.py")]
    ended = subprocess.run([sys.executable, *started], cwd=tmp_path, capture_output=True, text=True, check=True)
    mine = "package.script:mine" if module else f"{folder / 'script.py'}:mine"
    assert json.loads(ended.stdout) == [mine, f"{file}:plain", None, None]


def test_a_registry_finds_its_own_and_names_the_nearest() -> None:
    registry: Registry[type] = Registry("number", {"whole": int, "real": float}, error=RecipeError)
    assert registry.find("whole") is int
    assert registry.find("json:loads") is json.loads
    assert (registry.name_of(float), registry.name_of(json.loads)) == ("real", "json:loads")
    with pytest.raises(
        RecipeError, match=r"data\.kind: unknown number `rael`\. Did you mean `real`\? Known: whole, real"
    ):
        registry.find("rael", "data.kind")
    with pytest.raises(RecipeError, match=r"data\.kind 'json:lods': 'json' has no 'lods'\. Did you mean `loads`\?"):
        registry.find("json:lods", "data.kind")


def test_a_registry_without_entries_says_how_a_name_is_written() -> None:
    with pytest.raises(RecipeError) as error:
        TURNS.find("nothing", "rollout.turns")
    assert str(error.value) == (
        "rollout.turns: unknown turns function `nothing`. One of your own is written module:Name or "
        "path/to/file.py:Name"
    )


def test_a_step_verifier_that_is_no_name_is_told_how_it_is_written() -> None:
    with pytest.raises(RewardError, match=r"function: unknown step verifier `nothing`. One of your own is written mod"):
        resolve_reward({"name": "steps", "function": "nothing"})


def test_a_module_that_is_not_found_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="run it from the folder that holds 'no_such_package', or write the path"):
        load_named("no_such_package.mod:rew", "reward", RecipeError)
    (tmp_path / "mine.py").write_text("import no_such_package")
    with pytest.raises(RecipeError) as error:
        load_named(f"{tmp_path / 'mine.py'}:rew", "reward", RecipeError)
    assert "run it from" not in str(error.value)


@pytest.mark.parametrize("data", ["aritmetic", "aritmetic?terms=4"])
def test_a_misspelt_task_is_said_without_asking_the_hub(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*arguments: Any, **settings: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("sharpen.data.hub.load_dataset", asked)
    monkeypatch.setattr("sharpen.scaffold.source.load_dataset", asked)
    for read in (read_rows, find_source):
        with pytest.raises(RecipeError, match=r"no such task, file or folder. Did you mean `arithmetic`\?"):
            read(data)
    # Other names may be those of data sets.
    for other in ("squad", "organisation/aritmetic"):
        with pytest.raises(AssertionError, match="the hub was asked"):
            read_rows(other)
