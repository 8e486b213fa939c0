"""Measuring a model on held-out rows; a run and ``sharpen eval`` get the same numbers.

Rows are tokenised when a measurement is made, once; rows too long for the context are left out or refused, as
``data.overlong`` says, and prompts too long for the engine's memory are refused. The same weights give the same
numbers, bit for bit on the CPU of the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sharpen.evaluation.measures import MeasureNames, measures_of_answers, measures_of_completions
from sharpen.evaluation.runner import Evaluation, evaluate
from sharpen.evaluation.settings import EvaluationSettings
from sharpen.launch.inputs import HeldOut
from sharpen.launch.source_rows import Say
from sharpen.methods import Method
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.rewards.reward import all_part_names
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.generation import Interactions
from sharpen.rollout.settings import RolloutSettings
from sharpen.training.annotate import Annotator
from sharpen.training.held_out import measure_groups
from sharpen.training.microbatch import longest_prefix, usual_tokens
from sharpen.training.reference import Reference
from sharpen.training.settings import TrainingSettings

Measurement = Callable[[], Evaluation]
"""Measures a model with its current weights."""


def measure_names(held_out: HeldOut, method: Method, evaluation: EvaluationSettings) -> MeasureNames:
    """What will be measured, known before a model is loaded: over all rows, and again for each of several sources."""
    sources = [part.source for part in held_out.parts if part.source]
    if held_out.reads != "prompts":
        names = measures_of_completions(method.objectives()[0].figures)
        return names.joined(*(names.prefixed(f"{source}/") for source in sources))
    reward = held_out.reward
    assert reward is not None
    own = {source: reward.of_source(source) for source in sources}
    parts = all_part_names(list(own.values()) or [reward])
    names = measures_of_answers(parts, evaluation.k, votes=reward.has_answer)
    return names.joined(
        *(
            measures_of_answers(one.part_names, evaluation.k, votes=one.has_answer).prefixed(f"{source}/")
            for source, one in own.items()
        )
    )


def of_answers(
    held_out: HeldOut,
    model: Model,
    engine: Engine,
    *,
    evaluation: EvaluationSettings,
    rollout: RolloutSettings,
    interaction: Interactions,
    seed: int,
    say: Say,
) -> Measurement:
    """Answer the held-out prompts, ``evaluation.prompts`` of each source, with the model of ``engine``, and score the
    answers with the reward."""
    assert held_out.reward is not None
    limit = rollout.max_new_tokens
    prompts = [
        prompt
        for part in held_out.parts
        for prompt in part.prompts(model, engine, max_new_tokens=limit, say=say).first(at_most=evaluation.prompts)
    ]
    sampling = Sampling(
        limit, evaluation.temperature, evaluation.top_k, evaluation.top_p, evaluation.min_p, rollout.stop
    )
    return partial(
        evaluate,
        engine,
        prompts,
        held_out.reward,
        n=evaluation.n,
        ks=evaluation.k,
        sampling=sampling,
        seed=seed,
        threshold=evaluation.threshold,
        max_reward_failures=rollout.max_reward_failures,
        interaction=interaction,
    )


def of_completions(
    held_out: HeldOut,
    model: Model,
    reference: Reference | None,
    *,
    frozen: Mapping[str, Model],
    method: Method,
    at_most: int,
    training: TrainingSettings,
    say: Say,
) -> Measurement:
    """The method's loss and figures on ``at_most`` rows of held-out completions of each source, with its ``frozen``
    models."""
    groups = tuple(g for part in held_out.parts for g in part.groups(held_out.reads, model, say).first(at_most=at_most))
    tokens = training.tokens_per_microbatch
    if tokens is None:
        # From the held-out rows alone: the micro-batches decide the last bits of a sum.
        tokens = usual_tokens(model, longest_prefix(groups))
    # The completions were not sampled by this run, so there is no sampling temperature.
    limits = MicrobatchLimits(tokens, training.shared_prompt)
    annotator = Annotator({method.objectives()[0].model: model}, reference, 1.0, limits, frozen, method.producers())
    return lambda: Evaluation(measure_groups(method, annotator, groups), groups)
