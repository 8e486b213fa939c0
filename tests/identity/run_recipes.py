"""Runs recipes with the sharpen of a tree, by its command line: ``run_recipes.py TREE RECIPE.yaml...``"""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path


def main() -> None:
    tree, recipes = Path(sys.argv[1]).resolve(), sys.argv[2:]
    sys.path.insert(0, str(tree / "src"))
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["sharpen"].partition(":")
    command = getattr(importlib.import_module(module), function)
    found = Path(str(importlib.import_module("sharpen").__file__))
    if not found.is_relative_to(tree):
        raise RuntimeError(f"imported {found}, which is not of {tree}")
    for recipe in recipes:
        sys.argv = ["sharpen", "run", recipe, "--quiet"]
        try:
            command()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{recipe}: exit code {end.code}") from end


if __name__ == "__main__":
    main()
