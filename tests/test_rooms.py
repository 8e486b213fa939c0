"""The order of the packages: imports go down, and nowhere in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sharpen"

ORDER = (
    ("errors", "types", "batch", "settings", "describe", "suggest", "in_memory", "registry", "system"),
    ("runs", "sandbox"),
    ("functional", "data", "models"),
    ("rewards",),
    ("rollout",),
    ("methods", "evaluation"),
    ("training", "report"),
    ("recipe",),
    ("launch", "serving"),
    ("pipelines", "scaffold", "exporting"),
    ("api", "cli"),
)
"""From the lowest up. Those of one line do not import each other, but for the first, which are files."""

FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}


def room_of(module: str) -> str | None:
    """The package or file of ``sharpen`` that a module is in; None for ``sharpen`` itself, which holds nothing."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """The modules of sharpen that a file imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sharpen":
            assert node.module is not None
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "sharpen" else [node.module]
            )
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.partition(".")[0] == "sharpen")


def test_every_room_has_its_place() -> None:
    found = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_down(file: Path) -> None:
    own = room_of("sharpen." + ".".join(file.relative_to(SOURCE).with_suffix("").parts))
    if own == "__init__":
        return  # what it names is imported when it is asked for
    assert own is not None
    for line, module in imports(file):
        room = room_of(module)
        if room in (None, own, "__version__"):
            continue
        assert room is not None
        lower = FLOOR[room] < FLOOR[own] or FLOOR[room] == FLOOR[own] == 0
        assert lower, f"{file.name}:{line} imports {module}: {own} is not above {room}"


def test_the_order_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "low.py"
    file.write_text(
        "def f():\n    from sharpen.cli.app import main\nimport sharpen.launch.run\nfrom sharpen import api\n"
    )
    assert sorted(imports(file)) == [(2, "sharpen.cli.app"), (3, "sharpen.launch.run"), (4, "sharpen.api")]
