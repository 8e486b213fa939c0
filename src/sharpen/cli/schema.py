"""``sharpen schema``: the JSON Schema of a recipe."""

from __future__ import annotations

import json

import typer

from sharpen.recipe.json_schema import recipe_json_schema


def print_schema() -> None:
    typer.echo(json.dumps(recipe_json_schema(), ensure_ascii=False, indent=1))
