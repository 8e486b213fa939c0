"""What is measured on held-out rows, by a run as it goes and by ``sharpen eval`` afterwards: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sharpen.evaluation.runner import Evaluation, evaluate
from sharpen.launch.inputs import HeldOut, Say, groups_of, prompts_of
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.recipe.schema import Recipe
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.sampling import Truncation
from sharpen.training.annotate import Annotator
from sharpen.training.held_out import measure_groups
from sharpen.training.microbatch import usual_tokens
from sharpen.training.reference import Reference

Measurement = Callable[[], Evaluation]
"""Measures a model as it is now."""


def held_out_measurement(
    recipe: Recipe, held_out: HeldOut, model: Model, engine: Engine | None, reference: Reference | None, say: Say
) -> Measurement:
    """The measurement that a recipe asks for: of answers to held-out prompts, or of held-out completions.

    ``engine`` draws the answers of ``model``; ``reference`` is what completions are compared with, where the method
    does that. The rows are read into tokens here, once; a row too long for the context is left out or refused, as
    ``data.overlong`` says. The same weights give the same numbers, bit for bit on the CPU of the same machine.
    """
    if held_out.reads == "prompts":
        assert engine is not None
        return _of_answers(recipe, held_out, model, engine, say)
    return _of_completions(recipe, held_out, model, reference, say)


def _of_answers(recipe: Recipe, held_out: HeldOut, model: Model, engine: Engine, say: Say) -> Measurement:
    assert held_out.reward is not None
    rollout, settings = recipe.rollout, recipe.evaluation
    prompts = prompts_of(
        held_out.rows,
        model.tokenizer,
        recipe.data,
        max_new_tokens=rollout.max_new_tokens,
        context_length=model.context_length,
        say=say,
    )
    truncation = Truncation(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    return partial(
        evaluate,
        engine,
        prompts[: settings.prompts],
        held_out.reward,
        n=settings.n,
        ks=settings.k,
        sampling=Sampling(rollout.max_new_tokens, truncation, rollout.stop, rollout.max_sequences),
        seed=recipe.seed,
        threshold=settings.threshold,
        max_reward_failures=rollout.max_reward_failures,
    )


def _of_completions(
    recipe: Recipe, held_out: HeldOut, model: Model, reference: Reference | None, say: Say
) -> Measurement:
    method = recipe.method
    groups = groups_of(
        held_out.reads, held_out.rows, model.tokenizer, recipe.data, context_length=model.context_length, say=say
    )[: recipe.evaluation.prompts]
    tokens = recipe.training.tokens_per_microbatch
    if tokens is None:
        # By the held-out rows alone: how the work is cut decides the last bits of a sum.
        tokens = usual_tokens(model, max(len(group.prompt.token_ids) for group in groups))
    # Data was sampled by nobody, so there is no temperature that it was sampled at.
    annotator = Annotator(
        {method.objectives()[0].model: model}, reference, 1.0, MicrobatchLimits(tokens, recipe.training.shared_prompt)
    )
    return lambda: Evaluation(measure_groups(method, annotator, groups), groups)
