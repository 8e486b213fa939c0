"""The JSON Schema of a recipe, with which editors complete, explain and check one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sharpen.data.settings import DataSettings, SourceSettings
from sharpen.data.tasks import TASKS
from sharpen.data.tasks.registry import GYM_PREFIX
from sharpen.describe import Setting, about, described, paragraphs, plain, with_null
from sharpen.methods import METHODS, Method
from sharpen.recipe.describe import TOP, sections
from sharpen.recipe.schema import Recipe
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.registry import Weighting
from sharpen.runs.loggers import LOGGERS
from sharpen.runs.named_loggers import logger_settings
from sharpen.settings import section_of
from sharpen.training.settings import LogSettings

DRAFT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_OWN_NAME: Schema = {"type": "string", "pattern": ":", "description": "module:Name or path/to/file.py:Name"}


def recipe_json_schema() -> Schema:
    """The schema of a recipe as it is written: short forms included, a method or reward with exactly its settings."""
    asked: tuple[type[BaseModel], ...] = (
        Recipe,
        Weighting,
        *METHODS.values(),
        *(kind.settings for kind in REWARDS.values()),
    )
    kinds = list(_with_sections(asked))
    names, whole = models_json_schema([(kind, "validation") for kind in kinds])
    # Two classes of one name have longer names here.
    name_of = {kind: names[kind, "validation"]["$ref"].rpartition("/")[2] for kind in kinds}
    definitions = {name: _untitled(found) for name, found in whole["$defs"].items()}
    for kind in kinds:
        _describe(definitions[name_of[kind]], described(kind))
    definitions.pop(name_of[Method])
    recipe = _recipe(definitions, name_of[Recipe])

    weighting = definitions.pop(name_of[Weighting])["properties"]
    weighting["gate"]["anyOf"] = [{"type": "boolean"}, {"type": "number"}, *weighting["gate"]["anyOf"]]
    without_call = {name: found for name, found in weighting.items() if name != "call"}
    methods = {}
    for name, method in METHODS.items():
        found = definitions.pop(name_of[method])
        _own_defaults(name, method, found, definitions)
        methods[f"method_{name}"] = _named(name, found, about(method), {})
    rewards = {
        f"reward_{name}": _named(
            name,
            definitions.pop(name_of[kind.settings]),
            about(kind.described_by),
            weighting if kind.takes_call else without_call,
        )
        for name, kind in REWARDS.items()
    }
    task: Schema = {"type": "object", "additionalProperties": False}
    rewards["reward_task"] = _named("task", task, "The verifier of the task.", weighting)

    loggers = {
        f"logger_{name}": _named(name, _untitled(logger_settings(kind).model_json_schema()), about(kind), {})
        for name, kind in LOGGERS.items()
    }

    definitions |= methods | rewards | loggers
    log = definitions[name_of[LogSettings]]["properties"]
    definitions["logger"] = _one_of({name: f"logger_{name}" for name in LOGGERS}, {})
    _replace(log["loggers"], _one_or_several("logger"))
    definitions["reward"] = _one_of({name: f"reward_{name}" for name in (*REWARDS, "task")}, weighting)
    properties = recipe["properties"]
    _replace(properties["method"], _one_of({name: f"method_{name}" for name in METHODS}, {}))
    rewards_or_null = {"anyOf": [*_one_or_several("reward", minItems=1)["anyOf"], {"type": "null"}]}
    task_or_null = {"anyOf": [*_tasks(), {"type": "null"}]}
    source = definitions[name_of[SourceSettings]]["properties"]
    for place in (properties, source):
        _replace(place["reward"], rewards_or_null)
    for place in (definitions[name_of[DataSettings]]["properties"], source):
        _replace(place["task"], task_or_null)
    _replace(properties["model"], {"anyOf": [{"type": "string"}, {"$ref": properties["model"]["$ref"]}]})
    return {"$schema": DRAFT, "title": "sharpen recipe", **recipe, "$defs": dict(sorted(definitions.items()))}


def _with_sections(kinds: Iterable[type[BaseModel]]) -> dict[type[BaseModel], None]:
    """The classes of settings and those of their sections, each once."""
    found: dict[type[BaseModel], None] = {}
    waiting = [*kinds]
    while waiting:
        kind = waiting.pop(0)
        if kind not in found:
            found[kind] = None
            waiting += [inner for f in kind.model_fields.values() if (inner := section_of(f.annotation)) is not None]
    return found


def _recipe(definitions: dict[str, Schema], name: str) -> Schema:
    """The schema of the recipe itself; the sections' settings say when they have an effect there."""
    recipe = definitions.pop(name)
    for part in sections():
        found = recipe
        for section in part.name.split(".") if part.name != TOP else ():
            inner = found["properties"][section]
            # As a whole, a section has no default that anybody would write.
            inner.pop("default", None)
            found = definitions[next(_references(inner))]
        _describe(found, part.settings)
    return recipe


def _references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        yield from (name for inner in schema.values() for name in _references(inner))
    elif isinstance(schema, list):
        yield from (name for inner in schema for name in _references(inner))


def _describe(schema: Schema, settings: Iterable[Setting]) -> None:
    for setting in settings:
        found = schema["properties"][setting.name]
        schema["properties"][setting.name] = with_null({**found, "description": setting.text}, setting.default)


def _own_defaults(name: str, method: type[BaseModel], schema: Schema, definitions: dict[str, Schema]) -> None:
    """Where a method gives a section other defaults, a definition of that section with these."""
    for setting in described(method):
        if setting.section is None or setting.default == setting.section():
            continue
        found = schema["properties"][setting.name]
        section = definitions[next(_references(found))]
        defaults = plain(setting.default)
        properties = {key: {**inner, "default": defaults[key]} for key, inner in section["properties"].items()}
        definitions[f"method_{name}_{setting.name}"] = {**section, "properties": properties}
        found["$ref"] = f"#/$defs/method_{name}_{setting.name}"


def _named(name: str, schema: Schema, description: str, more: Mapping[str, Schema]) -> Schema:
    """The schema of a mapping of this ``name``, of its settings, and of ``more``."""
    return {
        **schema,
        "description": paragraphs(description),
        "properties": {"name": {"const": name}, **schema.get("properties", {}), **more},
        "required": ["name", *schema.get("required", [])],
    }


def _one_of(definitions: Mapping[str, str], more: Mapping[str, Schema]) -> Schema:
    """One of the names in ``definitions``, or a mapping of that ``name`` under the definition given for it.

    Or the user's own, with ``more`` and the settings that only its class or function knows. A mapping is told by its
    name, so that what is wrong with it is said of that name's settings.
    """
    names: Schema = {"enum": list(definitions)}

    def case(name: Schema, then: Schema) -> Schema:
        return {"if": {"properties": {"name": name}, "required": ["name"]}, "then": then}

    own = case({"pattern": ":"}, {"properties": dict(more)})
    known = [case({"const": name}, {"$ref": f"#/$defs/{at}"}) for name, at in definitions.items()]
    mapping = {
        "type": "object",
        "properties": {"name": {"anyOf": [names, _OWN_NAME]}},
        "required": ["name"],
        "allOf": [*known, own],
    }
    return {"anyOf": [names, _OWN_NAME, mapping]}


def _one_or_several(name: str, **bounds: int) -> Schema:
    """One of what a definition allows, or a list of these."""
    one = {"$ref": f"#/$defs/{name}"}
    return {"anyOf": [one, {"type": "array", "items": one, **bounds}]}


def _tasks() -> Iterator[Schema]:
    for name, kind in TASKS.items():
        parameter = f"({'|'.join(kind.model_fields)})=[^&]*"
        parameters = ", ".join(f"{key}={field.default}" for key, field in kind.model_fields.items())
        yield {
            "type": "string",
            "pattern": f"^{name}(\\?{parameter}(&{parameter})*)?$",
            "description": f"{paragraphs(about(kind))} Parameters: {parameters}",
        }
    yield {"type": "string", "pattern": f"^{GYM_PREFIX}.", "description": "A task of the package reasoning-gym."}
    yield {**_OWN_NAME, "pattern": f"^(?!{GYM_PREFIX}).*:"}


def _replace(schema: Schema, by: Schema) -> None:
    """Replace what a schema allows, and keep its description and default."""
    for key in schema.keys() - {"description", "default"}:
        del schema[key]
    schema.update(by)


def _untitled(schema: Any) -> Any:
    """The schema without the titles that pydantic makes of names, and with each paragraph on one line."""
    if isinstance(schema, list):
        return [_untitled(inner) for inner in schema]
    if not isinstance(schema, Mapping):
        return schema
    found: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _untitled(inner) for name, inner in value.items()}
        elif key == "description":
            found[key] = paragraphs(value)
        elif key != "title":
            found[key] = _untitled(value)
    return found
