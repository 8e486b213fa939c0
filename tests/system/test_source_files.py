"""Which source files count as a user's code, and which changes of them."""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

import pytest

from sharpen.system.source_files import code_hashes, source_hash

REWARD = """
import json
import helper
from inner.deep import depth

def right(completion):
    from late import answer
    return float(completion == answer)

if __name__ == "__main__":
    print(right("1"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "reward.py": REWARD,
        "helper.py": "import reward\n",  # a circle
        "late.py": "answer = 1\n",
        "unused.py": "other = 1\n",
        "inner/__init__.py": "",
        "inner/deep.py": "from . import beside\nfrom .beside import two\ndepth = 1\n",
        "inner/beside.py": "two = 2\n",
        "json.py.txt": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_files_are_its_own_and_those_beside_it_that_it_imports(folder: Path) -> None:
    hashes = code_hashes(str(folder / "reward.py"))
    assert list(hashes) == [
        "helper.py",
        "inner/__init__.py",
        "inner/beside.py",
        "inner/deep.py",
        "late.py",
        "reward.py",
    ]
    assert hashes["late.py"] == hashlib.sha256(b"answer = 1\n").hexdigest()


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("reward.py", "completion == answer", "completion != answer", ["reward.py"]),
        ("inner/beside.py", "2", "3", ["inner/beside.py"]),
        ("late.py", "1", "2", ["late.py"]),
        ("unused.py", "1", "2", []),
        # What a script does when it is run is not what a run calls.
        ("reward.py", 'print(right("1"))', "import sharpen\n    sharpen.resume('runs/mine')", []),
    ],
)
def test_a_change_of_what_is_called_is_seen(name: str, old: str, new: str, changed: list[str], folder: Path) -> None:
    before = code_hashes(str(folder / "reward.py"))
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    now = code_hashes(str(folder / "reward.py"))
    assert [file for file in now if now[file] != before[file]] == changed


def test_a_module_of_a_package_is_known_by_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    assert list(code_hashes("inner.deep")) == ["inner/__init__.py", "inner/beside.py", "inner/deep.py"]
    assert list(code_hashes("inner")) == ["inner/__init__.py"]
    monkeypatch.delitem(sys.modules, "inner", raising=False)


def test_of_an_installed_package_only_its_own_files_count() -> None:
    """`packaging` imports modules of the standard library only; `pytest` imports packages beside it."""
    assert {name.partition("/")[0] for name in code_hashes("pytest")} == {"pytest"}
    assert code_hashes("math") == {}


def test_the_source_of_what_has_no_file_of_its_own() -> None:
    def first(completion: str) -> float:
        return 1.0

    def other(completion: str) -> float:
        return 2.0

    class Called:
        def __call__(self, completion: str) -> float:
            return 3.0

    assert source_hash(first) == source_hash(functools.partial(first)) != source_hash(other)
    assert source_hash(Called()) == source_hash(Called) is not None
    assert source_hash(eval("lambda completion: 1.0")) is None
    assert source_hash(len) is None
