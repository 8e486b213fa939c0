"""Loading a model to use from Python, as its run used it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.data.chat.template import template_text, use_template
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.settings import DataSettings
from sharpen.errors import RecipeError
from sharpen.launch.handle import Run
from sharpen.launch.loaded_model import LoadedModel
from sharpen.launch.source_rows import declared_ends, ends_turns
from sharpen.models.dtype import AskedDtype
from sharpen.models.load import load_tokenizer
from sharpen.models.model import Model
from sharpen.models.policy import Policy, load_policy
from sharpen.models.scorer import Kind, saved_kind
from sharpen.models.settings import ModelSettings
from sharpen.models.vocabulary import embedding_rows
from sharpen.recipe.loading import load_section
from sharpen.rewards.models.model_reward import (
    ModelReward,
    ProcessModelReward,
    ProcessRewardModelSettings,
    RewardModelSettings,
    ScorerReward,
)
from sharpen.rollout.engine import Sampling
from sharpen.rollout.settings import RolloutSettings
from sharpen.runs.lookup import find_model


def load(
    name: str | Path | Run,
    *,
    chat: bool | None = None,
    system: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    step_separator: str | None = None,
    dtype: AskedDtype | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a run's latest checkpoint, a checkpoint, a model folder or a model from the hub, to use it.

    Args:
        name: what to load.
        chat: wrap a prompt that is a plain text as a user message.
        system: a system message for conversations.
        chat_template_kwargs: arguments of the chat template.
        chat_template: a chat template in place of the tokenizer's own: a file, its text, or the name of one of its own.
        step_separator: the text that ends a step, for a process reward model.
        dtype: the type of matrix products: ``float32``, ``bfloat16``, or ``auto``.
        device: ``auto`` is the GPU if there is one.
        trust_remote_code: run Python code that comes with the model.

    What is None is as in the model's run, if it has one; otherwise the default of a recipe.

    Raises:
        SharpenError: there is no such model, or it cannot be loaded.
    """
    named = find_model(str(name.path if isinstance(name, Run) else name))
    for note in named.notes[:-1]:  # the last only says which checkpoint it is
        warnings.warn(note, stacklevel=2)
    if named.run is None:
        # Without its check that there are rows: only the defaults of its other settings are wanted.
        data, rollout, of_model = DataSettings.model_construct(), RolloutSettings(), ModelSettings(path=named.path)
    else:
        data = load_section(named.run.recipe, DataSettings)
        rollout = load_section(named.run.recipe, RolloutSettings)
        of_model = load_section(named.run.recipe, ModelSettings)
    given, setting = data.chat_template, "data.chat_template"
    if chat_template is not None:
        given, setting = chat_template, "chat_template"
    if given is not None:
        template_text(given, setting)
    if isinstance(name, Run) and "rollout.engine.name" in name.given:
        rollout = name.recipe.rollout
    dtype, device = dtype or of_model.compute_dtype, device or of_model.device
    kind = saved_kind(named.path, trust_remote_code=trust_remote_code)
    model: Policy | ScorerReward
    if kind is None:
        model = load_policy(named.path, compute_dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        of_format: Model = model
    else:
        model = _scorer(kind, named.path, step_separator or data.step_separator, dtype, device)
        of_format = model.scorer
    use_template(of_format.tokenizer, given, setting)
    format = PromptFormat(
        of_format.tokenizer,
        of_format.context_length,
        data.chat if chat is None else chat,
        data.system if system is None else system,
        data.chat_template_kwargs if chat_template_kwargs is None else chat_template_kwargs,
        date=data.date,
        eos_ids=declared_ends(of_format),
        on_chat=ends_turns(of_format, warnings.warn),
        embedding_rows=embedding_rows(of_format.model),
    )
    sampling = Sampling(rollout.max_new_tokens, rollout.temperature, stop=rollout.stop)
    return LoadedModel(named.path, model, format, sampling, rollout.engine)


def _scorer(kind: Kind, path: str, separator: str | None, dtype: AskedDtype, device: str) -> ScorerReward:
    model: ScorerReward
    if kind == "sequence":
        model = ModelReward(RewardModelSettings(path=path, dtype=dtype, device=device))
    elif separator is None:
        raise RecipeError(f"{path}: a process reward model needs the text that ends a step: give step_separator")
    else:
        model = ProcessModelReward(
            ProcessRewardModelSettings(path=path, dtype=dtype, device=device, separator=separator)
        )
    model.use_tokenizer(load_tokenizer(path, trust_remote_code=False))
    return model
