"""The base of everything a user can set, and what an error in it says."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sharpen.suggest import did_you_mean


def not_blank(name: Any) -> Any:
    """Raises ValueError for a text of white space alone; anything else is returned."""
    if isinstance(name, str) and not name.strip():
        raise ValueError("it is empty: name something, or leave it out")
    return name


Name = Annotated[str, AfterValidator(not_blank), Field(json_schema_extra={"pattern": r"\S"})]
"""A text that names something, such as a model, a column or a measure: it is not blank."""
PathName = Annotated[Path, BeforeValidator(not_blank)]
"""A path; without a name it would be the working directory."""


class Settings(BaseModel):
    """Immutable; an unknown name is an error, never ignored; numbers are checked and never NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )


def explain(error: ValidationError, settings: type[BaseModel], noun: str = "setting") -> Iterator[str]:
    """What is wrong, one message per problem: the setting's name, the reason and the value given.

    An unknown name is answered with the nearest known one, or with all known ones. ``noun`` is what messages call a
    setting.
    """
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            yield f"unknown {noun} `{'.'.join(path)}`.{_suggestion(path, settings)}"
            continue
        message = problem["msg"].removeprefix("Value error, ")
        key = f"`{'.'.join(path)}`: " if path else ""
        given = "" if problem["type"] in ("missing", "value_error") else f" (given: {problem['input']!r})"
        yield f"{key}{message}{given}"


def _suggestion(path: Sequence[str], settings: type[BaseModel]) -> str:
    inner: type[BaseModel] | None = settings
    parts = list(path[:-1])
    while parts and inner is not None:
        annotation = _fields(inner).get(parts.pop(0))
        if get_origin(annotation) is dict and parts:
            # Sections under names that the user chooses.
            annotation = get_args(annotation)[1]
            parts.pop(0)
        inner = _settings_of(annotation)
    if inner is None:
        return ""
    known = _fields(inner)
    hint = did_you_mean(path[-1], known, prefix="".join(f"{part}." for part in path[:-1]))
    return hint or f" Known: {', '.join(known)}"


def _fields(settings: type[BaseModel]) -> Mapping[str, Any]:
    """The type of each field by the name that users write."""
    return {field.alias or name: field.annotation for name, field in settings.model_fields.items()}


def _settings_of(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := _settings_of(part)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
