"""A recipe and its inputs → a trainer that is ready to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from sharpen.data.chat.template import use_template
from sharpen.data.items import Items, MadeItems, joined
from sharpen.errors import ModelError
from sharpen.launch.columns_read import columns_read, scorers_read
from sharpen.launch.data_doubts import NeverRight
from sharpen.launch.held_out import Measurement, of_answers, of_completions
from sharpen.launch.inputs import HeldOut, Inputs
from sharpen.launch.models import load_frozen, load_helpers, load_model, load_reference
from sharpen.launch.source_rows import Say, SourceRows
from sharpen.methods import Role
from sharpen.models.dtype import computes_bfloat16
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.recipe.schema import Recipe
from sharpen.rewards.reward import Reward
from sharpen.rewards.scoring import score_step
from sharpen.rollout.collector import LocalCollector, Scoring
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.engines import make_engine
from sharpen.rollout.interaction import make_interaction
from sharpen.runs.folder import RunFolder
from sharpen.runs.logging import Loggers
from sharpen.runs.named_loggers import LoggerSpec, find_loggers
from sharpen.system.processors import available_processors
from sharpen.training.annotate import Annotator
from sharpen.training.fingerprint import fingerprint
from sharpen.training.microbatch import longest_prefix, usual_tokens
from sharpen.training.reference import Reference
from sharpen.training.sample_writer import SampleWriter
from sharpen.training.score_normalisation import MOST_DEMONSTRATIONS, ScoreNormalisation, best_of
from sharpen.training.trainer import Trainer
from sharpen.types import Group, Prompt


@contextmanager
def built_trainer(
    recipe: Recipe,
    inputs: Inputs,
    *,
    loggers: Sequence[LoggerSpec],
    say: Say,
    trust_remote_code: bool,
    checkpoint: Path | None,
) -> Iterator[Trainer]:
    """The trainer of a recipe, its models loaded from ``checkpoint`` if given; its loggers are closed at the end."""
    # Sources may share what is said of them.
    of_data = _once(say)
    method, data, rollout, training, seed = recipe.method, recipe.data, recipe.rollout, recipe.training, recipe.seed
    source, objective = method.source(), method.objectives()[0]
    found_loggers = [*find_loggers(loggers, "loggers"), *find_loggers(recipe.log.loggers)]
    if lacking := ", ".join(f"`{path}`" for path in recipe.missing_loggers()):
        say(f"without {lacking}: given in Python when this recipe was saved, and not now")
    main = load_model(
        recipe.model,
        objective.model,
        recipe.model.path,
        seed=seed,
        trust_remote_code=trust_remote_code,
        saved=checkpoint,
    )
    use_template(main.tokenizer, data.chat_template)
    if inputs.reward is not None:
        inputs.reward.use_tokenizer(main.tokenizer)
    helpers = load_helpers(
        recipe.model, method, main, inputs.reward, checkpoint, seed=seed, trust_remote_code=trust_remote_code
    )
    models: dict[Role, Model] = {objective.model: main, **helpers}
    if isinstance(main, Policy) and "values" in objective.needs and main.value_head is None:
        main.add_value_head()
    if main.compute_dtype == "bfloat16" and not computes_bfloat16(main.device):
        say("model.compute_dtype: this processor has no bfloat16 instructions; float32 is many times faster")
    threads, available = torch.get_num_threads(), available_processors()
    if main.device.type == "cpu" and threads > available:
        say(f"PyTorch uses {threads} threads on {available} processors; OMP_NUM_THREADS={available} is faster")
    engine = _engine(recipe, inputs, main)
    prompts: Items[Prompt] = MadeItems(())
    groups: Items[Group] = MadeItems(())
    if source.reads == "prompts":
        assert engine is not None
        prompts = joined(
            {part.source: _prompts(part, recipe, inputs.reward, main, engine, of_data) for part in inputs.train}
        )
    else:
        groups = joined({part.source: part.groups(source.reads, main, of_data) for part in inputs.train})
    for doubt in _doubts_of_reward(prompts.at_hand, inputs.reward):
        of_data(doubt)
    mixed = method.mixed()
    mixed_groups: Items[Group] = MadeItems(())
    if mixed is not None and inputs.mixed is not None:
        mixed_groups = inputs.mixed.groups(mixed.method.source().reads, main, of_data)
    reference = load_reference(recipe.model, method, models, checkpoint, seed=seed, trust_remote_code=trust_remote_code)
    lengths = (len(prompt.token_ids) for prompt in prompts.at_hand)
    longest_prompt = max(lengths, default=0) or longest_prefix(groups.at_hand)
    tokens = training.tokens_per_microbatch or usual_tokens(main, longest_prompt)
    limits = MicrobatchLimits(tokens, training.shared_prompt)
    # Log-probabilities are those of the distribution sampled from; given completions were not sampled by this run.
    temperature = rollout.temperature if source.on_policy else 1.0
    frozen = load_frozen(recipe.model, method, main, seed=seed, trust_remote_code=trust_remote_code)
    annotator = Annotator(models, reference, temperature, limits, frozen, method.producers())
    fixed = None if reference is None or reference.moves else reference.policy
    read, scorers = columns_read(recipe, inputs), scorers_read(inputs.reward)
    made = (*groups.at_hand, *mixed_groups.at_hand)
    fingerprint_now = fingerprint(prompts.at_hand, made, fixed, models, frozen, read, scorers)
    torch.manual_seed(seed)
    folder = RunFolder(recipe.run)
    collector = LocalCollector(
        prompts=prompts,
        groups=groups,
        shares=inputs.shares,
        engine=engine,
        store=folder.write_kept,
        score=_scoring(inputs.reward, rollout.max_reward_failures),
        sampling=Sampling(rollout.max_new_tokens, rollout.temperature, stop=rollout.stop),
        interaction=make_interaction(
            rollout, main, main.context_length if engine is None else engine.context_length, data.sources
        ),
        max_reward_failures=rollout.max_reward_failures,
        seed=seed,
    )
    mixed_collector = LocalCollector(groups=mixed_groups, seed=seed) if len(mixed_groups) else None
    held_out = None
    if inputs.held_out is not None:
        held_out = held_out_measurement(recipe, inputs.held_out, main, engine, reference, frozen, of_data)
    normalisation = None
    if method.normalises_scores:
        demonstrations = _demonstrations(inputs.demonstrations, groups, main, of_data)
        normalisation = ScoreNormalisation(demonstrations, limits, trust_remote_code)
    guarded = Loggers(found_loggers, say)
    try:
        yield Trainer(
            method,
            folder,
            models=models,
            annotator=annotator,
            engine=engine,
            collector=collector,
            mixed_collector=mixed_collector,
            held_out=held_out,
            score_normalisation=normalisation,
            loggers=guarded,
            say=say,
            fingerprint=fingerprint_now,
            training=training,
            optimizer=recipe.optimizer,
            checkpoint=recipe.checkpoint,
            completion_limit=rollout.max_new_tokens,
            evaluate_every=recipe.evaluation.every,
            samples=SampleWriter(
                folder,
                main.tokenizer,
                say,
                sampled=method.source().on_policy,
                conversations=collector.conversations,
                samples_every=recipe.log.samples_every,
                tokens_every=recipe.log.tokens_every,
            ),
            lag=rollout.lag,
        )
    finally:
        guarded.close()
        if engine is not None:
            engine.close()


def _engine(recipe: Recipe, inputs: Inputs, main: Model) -> Engine | None:
    """An engine if the run samples, for training or to answer held-out prompts.

    Raises ModelError for a model that the engine cannot sample from.
    """
    trains = recipe.method.source().reads == "prompts"
    if not isinstance(main, Policy) or not (trains or (inputs.held_out and inputs.held_out.reads == "prompts")):
        return None
    try:
        return make_engine(recipe.rollout.engine, main)
    except ModelError as error:
        if trains:
            raise
        raise ModelError(
            f"{error}. Training needs no sampling here, only the held-out answers do: leave out "
            f"{recipe.data.held_out_setting}"
        ) from error


def held_out_measurement(
    recipe: Recipe,
    held_out: HeldOut,
    model: Model,
    engine: Engine | None,
    reference: Reference | None,
    frozen: Mapping[str, Model],
    say: Say,
) -> Measurement:
    """The measurement that a recipe asks for.

    ``engine`` answers held-out prompts with ``model``; ``reference`` and ``frozen`` are what held-out completions are
    compared with, if the method does that.
    """
    if held_out.reads == "prompts":
        assert engine is not None
        return of_answers(
            held_out,
            model,
            engine,
            evaluation=recipe.evaluation,
            rollout=recipe.rollout,
            interaction=make_interaction(recipe.rollout, model, engine.context_length, recipe.data.sources),
            seed=recipe.seed,
            say=say,
        )
    return of_completions(
        held_out,
        model,
        reference,
        frozen=frozen,
        method=recipe.method,
        at_most=recipe.evaluation.prompts,
        training=recipe.training,
        say=say,
    )


def _prompts(
    part: SourceRows, recipe: Recipe, reward: Reward | None, model: Model, engine: Engine, say: Say
) -> Items[Prompt]:
    scored = reward is not None and reward.scores_source(part.source)
    return part.prompts(
        model,
        engine,
        max_new_tokens=recipe.rollout.max_new_tokens,
        say=say,
        reward=reward.of_source(part.source) if reward is not None and scored else None,
    )


def _once(say: Say) -> Say:
    """Says each text only the first time."""
    said: set[str] = set()

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return once


def _doubts_of_reward(prompts: Sequence[Prompt], reward: Reward | None) -> Iterator[str]:
    for source in dict.fromkeys(prompt.source for prompt in prompts):
        if reward is not None and reward.scores_source(source):
            never = NeverRight(reward.of_source(source))
            for prompt in prompts:
                if prompt.source == source:
                    never.look_at(prompt.id, prompt)
            yield from never.lines()


def _scoring(reward: Reward | None, max_failure_rate: float) -> Scoring | None:
    return None if reward is None else partial(score_step, reward, max_failure_rate=max_failure_rate)


def _demonstrations(demonstrations: SourceRows | None, ranked: Items[Group], model: Model, say: Say) -> Sequence[Group]:
    """What scores are normalised on: the demonstrations, or the best completion of each ranking if there are none."""
    if demonstrations is None:
        return best_of(ranked.first(at_most=MOST_DEMONSTRATIONS))
    return demonstrations.groups("demonstrations", model, say).first(at_most=MOST_DEMONSTRATIONS)
