"""Data, and perhaps a model → a recipe that was tried, in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sharpen.errors import DataError, RecipeError
from sharpen.rewards.checking.report import References
from sharpen.scaffold.check import doubt_about, parsed, read, try_reward
from sharpen.scaffold.choose import Choices, choose
from sharpen.scaffold.draft import Draft
from sharpen.scaffold.findings import Findings
from sharpen.scaffold.header import header_of
from sharpen.scaffold.machine import Machine, this_machine
from sharpen.scaffold.model_facts import look_at_model, usual_model
from sharpen.scaffold.readable import readable
from sharpen.scaffold.sections import draft_of
from sharpen.scaffold.source import Source, find_source
from sharpen.scaffold.write import to_yaml
from sharpen.system.files import named_write_errors

STAND_IN_REWARD = "reward: {name: contains, words: [a]}\n"
"""With which the rest of a recipe is tried if its reward cannot be chosen automatically."""


@dataclass(frozen=True, slots=True)
class FirstRecipe:
    """What was written to ``file`` and why; ``references`` is how the reward did, if there is one."""

    file: Path
    choices: Choices
    draft: Draft
    references: References | None


def write_first_recipe(
    data: str, *, model: str | None = None, file: Path | None = None, machine: Machine | None = None
) -> FirstRecipe:
    """Look at data and write a commented recipe for it, with ``model``, or SmolLM2-135M-Instruct if None.

    ``file`` is by default named after the data, in the current working directory. Before anything is written, the
    recipe's rows are read and its reward is tried on their reference answers. Nothing is downloaded but a data set of
    the hub.

    Raises:
        RecipeError: the file exists.
        SharpenError: the data cannot be used, or not by a recipe.
    """
    if file is not None:
        _refuse_existing(file)
    source = find_source(data)
    file = file or Path(f"{source.name}.yaml")
    _refuse_existing(file)
    source, findings = _looked_at(source)
    source = _with_usable_held_out(source, findings)
    choices = choose(source, findings, look_at_model(model or usual_model()), machine or this_machine())
    choices = replace(choices, model_given=model is not None)
    run = _free_run(source.name)
    draft = _draft(choices, run, file)
    references = _tried(choices, draft, file)
    if references is not None and choices.reward is not None and (doubt := doubt_about(references)) is not None:
        choices = replace(choices, reward=replace(choices.reward, unsure=doubt))
        draft = _draft(choices, run, file)
    with named_write_errors(file, "the recipe"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(to_yaml(draft))
    return FirstRecipe(file, choices, draft, references)


def _looked_at(source: Source) -> tuple[Source, Findings]:
    """The source with its rows as a run reads them, and what these are for."""
    if source.task is None:
        rows, findings = readable(source.rows)
        return replace(source, rows=rows), findings
    others = source.task.demonstrations() is not None
    unsure = ("the task has demonstrations too: `method: sft` learns from these",) if others else ()
    conversational = isinstance(source.rows[0].get("prompt"), list)
    return source, Findings("task", {"prompt": "the prompt"}, "prompt", conversational, unsure=unsure)


def _with_usable_held_out(source: Source, findings: Findings) -> Source:
    """The source without its held-out rows if they are of another kind."""
    if source.held_out is None or source.held_out_rows is None:
        return source
    try:
        rows, found = readable(source.held_out_rows, findings.columns)
        if found.kind == findings.kind:
            return replace(source, held_out_rows=rows)
        why = "its rows are of another kind"
    # They were found by their name and not named by the user: a reason to leave them out.
    except DataError as error:
        why = str(error).split("\n")[0]
    return replace(
        source, held_out=None, held_out_rows=None, left_out=f"{source.held_out} is not used to measure on: {why}"
    )


def _draft(choices: Choices, run: str, file: Path) -> Draft:
    draft = draft_of(choices, run)
    draft.header = header_of(choices, str(file))
    return draft


def _tried(choices: Choices, draft: Draft, file: Path) -> References | None:
    text = to_yaml(draft)
    recipe = parsed(text + STAND_IN_REWARD if draft.missing else text, str(file))
    inputs = read(recipe, choices.model)
    if draft.missing or inputs.reward is None:
        return None
    task = choices.source.task
    (train,) = inputs.train
    return try_reward(inputs.reward, train.rows, recipe, None if task is None else task.reference)


def _free_run(name: str) -> str:
    """A folder that no run has yet."""
    run, number = f"runs/{name}", 1
    while Path(run).exists():
        number += 1
        run = f"runs/{name}_{number}"
    return run


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise RecipeError(f"{file}: exists already and is not overwritten; name another file with -o")
