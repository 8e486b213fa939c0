"""The base of everything a user can set, and what an error in it says."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sharpen.suggest import did_you_mean
from sharpen.system.shown import shown

_NO_EFFECT = "no_effect"
_PLAIN_WORDS = {
    "model_type": "write a section of settings",
    "dict_type": "write a mapping",
    "tuple_type": "write a list",
    "path_type": "write a path",
}
"""In place of pydantic's messages that name classes of Python."""


@dataclass(frozen=True, slots=True)
class Effect:
    """When a setting has an effect: `Effect("max_rounds", "with dynamic_sampling", lambda s: s.dynamic_sampling)`.

    ``setting`` is a field, a field of a section within (``kl.decay``), or a section as a whole. ``only`` completes the
    message "has no effect: only …" and the descriptions of the setting. ``when`` gets the object that holds the
    settings. ``said`` is what the message says of the setting in place of "has no effect: only …", where it has to name
    values of that object.
    """

    setting: str
    only: str
    when: Callable[[Any], bool]
    said: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class _Idle:
    """A setting without effect by its path, and what is said of it."""

    setting: str
    said: str


def not_blank(name: Any) -> Any:
    """Raises ValueError for a text of white space alone or with NUL, which no name has; anything else is returned."""
    if isinstance(name, str) and not name.strip():
        raise ValueError("it is empty: name something, or leave it out")
    if isinstance(name, str) and "\0" in name:
        raise ValueError("it holds the character NUL, which no name has")
    return name


Name = Annotated[str, AfterValidator(not_blank), Field(json_schema_extra={"pattern": r"\S"})]
"""A text that names something, such as a model, a column or a measure: it is not blank."""
PathName = Annotated[Path, BeforeValidator(not_blank), AfterValidator(Path.expanduser)]
"""A path, with ~ expanded; without a name it would be the working directory."""
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]
"""A time limit; 1,000,000 s are eleven days, and no system call waits for more than some years."""

LOWEST_TEMPERATURE = 1e-4
"""Logits divided by less could overflow."""

LARGEST = {int: 2**63 - 1, float: 3.4e38}
"""No number of a setting is larger in size: 64 bits hold no larger integer, and float32 no larger number."""


class Settings(BaseModel):
    """Immutable; an unknown name is an error, never ignored; numbers are checked and never NaN.

    A setting of ``effects`` must keep its class's default where it has no effect. Each class lists its own; those of
    its bases hold as well. Defaults are compared, not what was given: a saved recipe gives every setting.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    effects: ClassVar[tuple[Effect, ...]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses what pydantic would take for something else: true for the number 1, and the number 1 for true."""
        assert info.field_name is not None
        _check_kind(value, set(_kinds(cls.model_fields[info.field_name].annotation)))
        return value

    @classmethod
    def all_effects(cls) -> tuple[Effect, ...]:
        """The effects of the class and of its bases, the bases' first."""
        own = (vars(base).get("effects", ()) for base in reversed(cls.__mro__))
        return tuple(effect for effects in own for effect in effects)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Raises TypeError for an effect of a setting that does not exist."""
        super().__pydantic_init_subclass__(**kwargs)
        for effect in vars(cls).get("effects", ()):
            if not _exists(cls, effect.setting.split(".")):
                raise TypeError(f"{cls.__name__}.effects: there is no setting `{effect.setting}`")

    @model_validator(mode="after")
    def _settings_have_effect(self) -> Self:
        idle = [
            _Idle(path, f"has no effect: only {effect.only}" if effect.said is None else effect.said(self))
            for effect in self.all_effects()
            if not effect.when(self)
            for path in _changed(self, effect.setting.split("."))
        ]
        if idle:
            raise _no_effect(idle)
        return self


def _kinds(annotation: Any) -> Iterator[Any]:
    """The plain types that a value of this type consists of."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from map(type, parts)
    elif origin is Annotated:
        yield from _kinds(parts[0])
    elif parts:
        for part in parts:
            yield from _kinds(part)
    else:
        yield annotation


def _check_kind(value: Any, kinds: set[Any]) -> None:
    numbers = kinds & LARGEST.keys()
    if isinstance(value, list | tuple) and numbers:
        for inner in value:
            _check_kind(inner, kinds)
    elif isinstance(value, bool) and numbers and bool not in kinds:
        raise ValueError(f"write a number, not {str(value).lower()}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and bool in kinds and not numbers:
        raise ValueError(f"write true or false, not {value!r}")
    elif isinstance(value, int | float) and numbers and math.isfinite(value if isinstance(value, float) else 0):
        kind = float if float in numbers else int
        if abs(value) > LARGEST[kind]:
            raise ValueError(f"the number is too large: at most {LARGEST[kind]:.1e}")
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("the text is not valid Unicode: it holds half of a surrogate pair")


def _no_effect(idle: Sequence[_Idle]) -> PydanticCustomError:
    said = "; ".join(f"`{one.setting}` {one.said}" for one in idle)
    # The text is an argument, as a message template must not hold braces.
    return PydanticCustomError(_NO_EFFECT, "{said}", {"said": said, "idle": idle})


def _exists(settings: type[BaseModel] | None, path: Sequence[str]) -> bool:
    """Whether a class has a setting of that path; one without fields of its own, `Method`, may get it in a subclass."""
    if settings is None or path[0] not in settings.model_fields:
        return settings is not None and not settings.model_fields
    return len(path) == 1 or _exists(section_of(settings.model_fields[path[0]].annotation), path[1:])


def _changed(settings: BaseModel, path: Sequence[str], default: Any = None, within: str = "") -> Iterator[str]:
    """The path of a setting if it is not the default of the class that holds it, within ``default`` if that is one.

    Of a setting of sections under names of the user's, the path in each of these.
    """
    name, *rest = path
    if name not in type(settings).model_fields:
        # A method without that setting.
        return
    value = getattr(settings, name)
    usual = (
        getattr(default, name) if isinstance(default, type(settings)) else default_of(type(settings).model_fields[name])
    )
    if not rest and (value is not None if usual is None else bool(value != usual)):
        yield f"{within}{name}"
    elif rest and isinstance(value, BaseModel):
        yield from _changed(value, rest, usual, f"{within}{name}.")
    elif rest and type(value) is dict:
        for key, section in value.items():
            yield from _changed(section, rest, None, f"{within}{name}.{key}.")


def default_of(field: FieldInfo) -> Any:
    """The default of a field, `PydanticUndefined` if it is required."""
    return field.get_default(call_default_factory=True, validated_data={})


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
        if problem["type"] == _NO_EFFECT:
            for idle in problem["ctx"]["idle"]:
                yield f"`{'.'.join([*path, idle.setting])}` {idle.said}"
            continue
        message = _PLAIN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        key = f"`{'.'.join(path)}`: " if path else ""
        given = "" if problem["type"] in ("missing", "value_error") else f" (given: {shown(problem['input'])})"
        yield f"{key}{message}{given}"


def without_effect(error: ValidationError) -> list[tuple[str, ...]]:
    """The paths of the settings that an error refuses because they have no effect; empty if anything else is wrong."""
    problems = error.errors()
    if any(problem["type"] != _NO_EFFECT for problem in problems):
        return []
    paths = [
        (*map(str, problem["loc"]), *idle.setting.split(".")) for problem in problems for idle in problem["ctx"]["idle"]
    ]
    return list(dict.fromkeys(paths))


def passed_on(error: ValidationError) -> ValueError | None:
    """What to raise in a validator for an error of a section's that says only which settings have no effect, so that
    `without_effect` and `explain` find these settings; None for other errors."""
    if not without_effect(error):
        return None
    return _no_effect(
        [
            _Idle(".".join([*map(str, problem["loc"]), idle.setting]), idle.said)
            for problem in error.errors()
            for idle in problem["ctx"]["idle"]
        ]
    )


def _suggestion(path: Sequence[str], settings: type[BaseModel]) -> str:
    inner: type[BaseModel] | None = settings
    parts = list(path[:-1])
    while parts and inner is not None:
        annotation = _fields(inner).get(parts.pop(0))
        if get_origin(annotation) is dict and parts:
            # Sections under names that the user chooses.
            annotation = get_args(annotation)[1]
            parts.pop(0)
        inner = section_of(annotation)
    if inner is None:
        return ""
    known = _fields(inner)
    hint = did_you_mean(path[-1], known, prefix="".join(f"{part}." for part in path[:-1]))
    return hint or f" Known: {', '.join(known)}"


def _fields(settings: type[BaseModel]) -> Mapping[str, Any]:
    """The type of each field by the name that users write."""
    return {field.alias or name: field.annotation for name, field in settings.model_fields.items()}


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The class of a section of settings, of an optional one, or of several under names; None for other types."""
    if get_origin(annotation) in (Union, types.UnionType, dict, Annotated):
        return next((found for part in get_args(annotation) if (found := section_of(part)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
