"""Options of the command line whose value is YAML."""

from __future__ import annotations

from typing import Any

import yaml

from sharpen.errors import RecipeError


def yaml_option(option: str, text: str | None) -> Any:
    """What an option's YAML says; None where it is not given. Raises RecipeError if it is not YAML."""
    try:
        return None if text is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--{option}: {text!r} is not YAML") from error
