"""Is what was written a recipe that runs? Its settings, its rows and its reward are tried before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable

from omegaconf import OmegaConf

from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.errors import RewardError
from sharpen.launch.inputs import Inputs, read_inputs
from sharpen.launch.source_rows import groups_of
from sharpen.recipe.loading import make_recipe
from sharpen.recipe.schema import Recipe
from sharpen.rewards.checking.case import Case
from sharpen.rewards.checking.cases import spaced, with_references
from sharpen.rewards.checking.findings import worth
from sharpen.rewards.checking.probe import Probe, Trial
from sharpen.rewards.checking.prompts import asked, questions
from sharpen.rewards.checking.report import References
from sharpen.rewards.reward import Reward
from sharpen.scaffold.lengths import NO_LIMIT
from sharpen.scaffold.model_facts import ModelFacts
from sharpen.scaffold.part import part_of
from sharpen.types import Reads, Row

TRIED_ROWS = 50
"""Rows on whose reference answers the reward is tried."""


def parsed(text: str, where: str) -> Recipe:
    """The recipe that a text is. Raises RecipeError as `sharpen.recipe.loading.load_recipe` does."""
    tree = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert isinstance(tree, dict)
    return make_recipe({str(key): value for key, value in tree.items()}, where=where)


def read(recipe: Recipe, model: ModelFacts) -> Inputs:
    """Read the data and the reward of a recipe, and tokenise rows, as a run does before its first step.

    Raises:
        SharpenError: a run would not begin.
    """
    inputs = read_inputs(recipe)
    reads = recipe.method.source().reads
    for part in inputs.train:
        _tokenise(part.rows, reads, recipe, model)
    if inputs.held_out is not None:
        for part in inputs.held_out.parts:
            _tokenise(part.rows, inputs.held_out.reads, recipe, model)
    return inputs


def _tokenise(rows: Rows, reads: Reads, recipe: Recipe, model: ModelFacts) -> None:
    context = model.context if model.at_hand and model.context is not None else NO_LIMIT
    format = PromptFormat.of(recipe.data, model.tokenizer, context)
    rows = part_of(rows).rows
    if reads == "prompts":
        load_prompts(rows, format, max_new_tokens=recipe.rollout.max_new_tokens)
    else:
        groups_of(reads, rows, format, step_separator=recipe.data.step_separator, say=lambda text: None)


def try_reward(
    reward: Reward, rows: Rows, recipe: Recipe, reference: Callable[[Row], str | None] | None = None
) -> References:
    """The reward of the rows' reference answers.

    Raises:
        RewardError: no reference gets a full reward, or the reward cannot score these rows.
    """
    part, names = spaced(rows, TRIED_ROWS)
    settings = recipe.reward_check
    probe = Probe(reward, threshold=recipe.evaluation.threshold, tokenizer=None, timeout_s=settings.timeout_s)
    cases = [Case(where, prompt, asked(prompt.row)) for where, prompt in zip(names, questions(part), strict=True)]
    _, references = with_references(probe, cases, part.columns, reference)
    if references.origin is None:
        # What is in the rows is read all the same, so rows that the reward cannot read are found.
        trials = [probe(case.where, case.prompt, "") for case in cases]
        if failed := [trial for trial in trials if trial.score.error is not None or trial.stops is not None]:
            raise RewardError(f"{failed[0].where}: reward {reward.name} cannot score this row: {worth(failed[0])}")
    elif references.tried and not references.full:
        raise RewardError(f"no reference answer gets a full reward from {reward.name}; {_first(references.failed)}")
    return references


def doubt_about(references: References) -> str | None:
    """What is wrong with a reward that accepts some references only."""
    if not references.failed:
        return None
    return (
        f"{len(references.failed)} of {references.tried} reference answers that were tried do not get a full reward: "
        f"{_first(references.failed)}"
    )


def _first(failed: tuple[Trial, ...]) -> str:
    return f"the first is {failed[0].where}, {worth(failed[0])}"
