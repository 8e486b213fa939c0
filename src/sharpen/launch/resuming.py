"""What has changed since the checkpoint that a run goes on from: said, accepted and recorded, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
import transformers

import sharpen
from sharpen.errors import ChangedError, ModelError, RecipeError
from sharpen.launch.code_read import GIVEN, code_read, named_code
from sharpen.launch.source_rows import Say
from sharpen.recipe.resumed import changed_since, is_ordinary, settings_to_keep
from sharpen.recipe.schema import Recipe
from sharpen.runs.changes import Changes
from sharpen.runs.checkpoint_state import fitting, load_state
from sharpen.training.differences import Difference, data_differences, model_differences
from sharpen.training.trainer import Trainer

SHOWN = 100
"""Characters of a setting's value in messages."""

_DRAWN = re.compile(
    r"data|columns/data\.((sources\.[^/]+\.)?train|mixed)/.*|code/.*|scorers/.*|recipe/(reward|data|rollout|method|training|seed)\b.*"
)
"""Entries that decide how completions are drawn and scored, and so concern batches that are drawn already."""

_MEASURED_ALIKE = re.compile(
    r"data|columns/data\.(sources\.[^/]+\.)?(train|mixed|demonstrations)/.*|versions/.*"
    r"|recipe/(optimizer|training|model|evaluation\.every\b|data\.(sources\.[^/]+\.)?(train|mixed|demonstrations)\b).*"
)
"""Entries on which no measure depends: with these alone, the best measure so far can be compared with later ones."""


def of_recipe(recipe: Recipe) -> dict[str, Any]:
    """The part of a run's fingerprint that its recipe decides: settings, the user's own code, and versions."""
    versions = {"sharpen": sharpen.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return {
        "recipe": settings_to_keep(recipe),
        "code": code_read(recipe),
        "versions": {name: str(version) for name, version in versions.items()},
    }


def refuse_impossible(path: Path, recipe: Recipe, state: Mapping[str, Any], checkpoint: Path) -> None:
    """Raises RecipeError if a recipe cannot go on from a checkpoint, whatever is accepted; loads nothing."""
    with fitting(checkpoint):
        problems = list(_impossible(path, recipe, state, checkpoint))
    if problems:
        raise RecipeError(_listed(f"{path}: cannot go on from {checkpoint.name}", problems))


def _impossible(path: Path, recipe: Recipe, state: Mapping[str, Any], checkpoint: Path) -> Iterator[str]:
    saved = state["fingerprint"].get("recipe", {})
    if state["step"] > recipe.training.steps:
        yield f"`training.steps` is {recipe.training.steps}, and {state['step']} steps are done"
    before, now = (tree.get("method", {}).get("name") for tree in (saved, settings_to_keep(recipe)))
    if before is not None and _last_part(before) != _last_part(now):
        yield f"{_setting('method.name', before, now)}: start another run, with `model: {path}`"
    else:
        roles = [str(objective.model) for objective in recipe.method.objectives()]
        if set(roles) != set(state["updates"].keys()):
            trained = " and ".join(state["updates"])
            yield f"`method` trained the {trained}, and now trains the {' and '.join(roles)}"
    moves = recipe.method.needs_reference and recipe.method.kl_settings.reference != "fixed"
    if moves and not (checkpoint / "reference").is_dir():
        yield "`method` now has a reference that moves, and had none"


@dataclass(frozen=True, slots=True)
class Changed:
    """What is not as it was at a checkpoint, of ``step`` steps, that a run goes on from."""

    changes: Changes
    step: int
    differences: tuple[Difference, ...]

    @classmethod
    def since(cls, path: Path, state: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> Changed:
        """Compares the ``state`` of a checkpoint with the fingerprint of the run that goes on."""
        found = tuple(_differences(state["fingerprint"], fingerprint))
        return cls(Changes(path), state["step"], found)

    def check(self, *, accept: bool, say: Say) -> None:
        """Say each difference.

        Raises:
            ModelError: something cannot work.
            ChangedError: something has to be accepted, and neither is now nor was by an earlier resume from here.
        """
        folder = self.changes.path.parent
        if impossible := [one.what for one in self.differences if one.kind == "impossible"]:
            raise ModelError(_listed(f"{folder}: cannot go on with what has changed", impossible))
        accepted = {_key(entry, pair) for one in self.changes.at(self.step) for entry, pair in one["entries"].items()}
        new = [
            one for one in self.differences if not accepted.issuperset(_key(*entry) for entry in one.entries.items())
        ]
        if (asked := [one.what for one in new if one.kind == "asked"]) and not accept:
            remedy = "to go on with this, which is then recorded: --accept-changes, in Python accept_changes=True"
            raise ChangedError(f"{_listed(f'{folder}: not what this run was started with', asked)}\n{remedy}")
        for one in self.differences:
            say(f"changed: {one.what}" if one in new else f"changed before, and recorded: {one.what}")

    def record(self) -> None:
        """Write the differences to the run's `changes.jsonl`, before a step is done with them."""
        changed = [{"what": one.what, "entries": dict(one.entries)} for one in self.differences]
        self.changes.write(self.step, changed)

    @property
    def drawn_otherwise(self) -> bool:
        """Whether completions are now drawn or scored in another way."""
        return any(_DRAWN.fullmatch(entry) for one in self.differences if one.kind == "asked" for entry in one.entries)

    @property
    def measured_otherwise(self) -> bool:
        """Whether later measures cannot be compared with those so far."""
        return not all(_MEASURED_ALIKE.fullmatch(entry) for one in self.differences for entry in one.entries)


def go_on(trainer: Trainer, path: Path, checkpoint: Path | None, *, accept_changes: bool, say: Say) -> Changed:
    """Load a checkpoint, if there is one, into the trainer that was built of its models.

    Returns what has changed since. Raises as `Changed.check` does.
    """
    if checkpoint is None:
        return Changed(Changes(path), 0, ())
    state = load_state(checkpoint)
    with fitting(checkpoint):
        if missing := [what for name, what in _RECORDED.items() if name not in state["fingerprint"]]:
            say(f"{checkpoint.name} was written by a version that did not record {', '.join(missing)}: not compared")
        changed = Changed.since(path, state, trainer.fingerprint)
    changed.check(accept=accept_changes, say=say)
    trainer.load(checkpoint, drawn_otherwise=changed.drawn_otherwise, measured_otherwise=changed.measured_otherwise)
    if state["best"] is not None and changed.measured_otherwise:
        say("checkpoint.best: the measures so far cannot be compared with the next ones; the best begins anew")
    return changed


_RECORDED = {
    "columns": "the columns of its data",
    "recipe": "its settings",
    "code": "its source code",
    "scorers": "the models of its rewards",
}
"""Entries of a fingerprint that earlier versions did not have."""


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    yield from data_differences(saved, now)
    yield from model_differences(saved, now)
    code = list(_code(saved, now))
    changed = {entry for one in code for entry in one.entries}
    yield from code
    names = dict(named_code(now["recipe"]))
    for path, old, new in changed_since(saved["recipe"], now["recipe"]) if "recipe" in saved else ():
        # The same code elsewhere.
        moved = (
            f"code/{path}" not in changed
            and path in names
            and path in saved.get("code", {})
            and _last_part(old) == _last_part(new)
        )
        ordinary = moved or is_ordinary(path, old, new)
        yield Difference(_setting(path, old, new), {f"recipe/{path}": (old, new)}, kind="said" if ordinary else "asked")
    for name, version in now["versions"].items():
        before = saved.get("versions", {}).get(name, version)
        if before != version:
            what = f"{name} was {before} and is now {version}; the last digits of numbers may differ"
            yield Difference(what, {f"versions/{name}": (before, version)}, "said")


def _code(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    names = dict(named_code(now["recipe"]))
    for setting, files in now["code"].items():
        before = saved.get("code", {}).get(setting)
        if before is None or before == files:
            continue
        changed = [file for file in sorted({**before, **files}) if before.get(file) != files.get(file)]
        where = "given in Python" if GIVEN in changed else f"{names.get(setting, '')}: {', '.join(changed)}"
        yield Difference(f"`{setting}` has other source code ({where})", {f"code/{setting}": (before, files)})


def _setting(path: str, old: Any, new: Any) -> str:
    texts = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
    # Of long values, what is around the first character that differs.
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    start = max(0, alike - SHOWN // 2) if max(map(len, texts)) > SHOWN else 0
    before, now = (
        f"{'…' * (start > 0)}{text[start : start + SHOWN]}{'…' * (len(text) > start + SHOWN)}" for text in texts
    )
    return f"`{path}` was {before} and is now {now}"


def _last_part(name: Any) -> Any:
    return name.rpartition(":")[2] if isinstance(name, str) else name


def _listed(head: str, lines: list[str]) -> str:
    return "\n".join([f"{head}:", *(f"- {line}" for line in lines)])


def _key(entry: str, pair: Any) -> str:
    return f"{entry} {json.dumps(pair, sort_keys=True)}"
