"""A model to use from Python: it generates, answers, and gives log-probabilities or scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from sharpen.data.chat.messages import given_by
from sharpen.data.chat.template import template_text, use_template
from sharpen.data.collate import collate
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.data.settings import DataSettings
from sharpen.errors import ModelError, RecipeError
from sharpen.launch.handle import Run
from sharpen.launch.source_rows import declared_ends, ends_turns, prompts_of
from sharpen.models.dtype import AskedDtype
from sharpen.models.forward import MicrobatchLimits, all_outputs
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
from sharpen.rollout.chat import Conversation
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.engines import make_engine
from sharpen.rollout.generation import generate
from sharpen.rollout.settings import EngineSettings, RolloutSettings
from sharpen.runs.lookup import find_model
from sharpen.training.microbatch import usual_tokens
from sharpen.types import Finish, Group, Message, single_turn

PromptLike: TypeAlias = str | Sequence[Message]
"""A text, or a conversation: a list of messages with ``role`` and ``content``."""

Given: TypeAlias = Sequence[Any] | str | None
"""Tools, functions or JSON schemas, or documents, for the chat template; also as JSON text."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion of a prompt, which is given as the model read it.

    ``logprobs`` are in nats, under the distribution that each token was drawn from.
    """

    prompt: str
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


class LoadedModel:
    """A model that `sharpen.load` loaded. Close it, or use it in a ``with`` statement, to free its memory.

    ``path`` is the folder or hub id that it was loaded from, ``kind`` what it is: ``policy`` (a language model),
    ``reward_model`` or ``process_reward_model``. ``sampling`` is what `generate` uses unless told otherwise.
    """

    def __init__(
        self,
        path: str,
        model: Policy | ScorerReward,
        format: PromptFormat,
        sampling: Sampling,
        engine_settings: EngineSettings,
    ) -> None:
        self.path, self.sampling = path, sampling
        self.kind = "policy" if isinstance(model, Policy) else model.name
        self._model: Policy | ScorerReward | None = model
        self._format, self._engine_settings = format, engine_settings
        self._engine: Engine | None = None
        self._conversations: list[Conversation] = []

    def generate(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        sampling: Sampling | None = None,
        *,
        n: int = 1,
        seed: int = 0,
        tools: Given = None,
        documents: Given = None,
    ) -> list[Completion]:
        """``n`` completions of each prompt, one prompt's after the other's.

        A completion depends on the seed, its number and its prompt, not on what it is generated together with.
        ``tools`` (functions or JSON schemas) and ``documents`` are for the chat template.

        Raises:
            DataError: a prompt is empty, or leaves too little of the context, or the chat template leaves out a part.
        """
        if n < 1:
            raise RecipeError(f"n is at least 1, not {n}")
        policy = self._policy()
        sampling = sampling or self.sampling
        if self._engine is None:
            self._engine = make_engine(self._engine_settings, policy)
        limit = sampling.max_new_tokens
        items = prompts_of(
            self._rows(prompts, tools, documents), self._format, self._engine, max_new_tokens=limit, say=warnings.warn
        )
        draw_ids = [range(n * index, n * (index + 1)) for index in range(len(items))]
        groups = generate(self._engine, items, draw_ids, sampling, seed)
        return [
            Completion(item.text, t.text, t.token_ids, t.last.logprobs, t.last.finish)
            for item, group in zip(items, groups, strict=True)
            for t in group
        ]

    def reply(
        self,
        text: str,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
        tools: Given = None,
        documents: Given = None,
    ) -> str:
        """The answer to a single message. Without a chat template, the completion of ``text``."""
        conversation = self._conversation(sampling, seed, tools, documents)
        try:
            return conversation.reply(text).text
        finally:
            conversation.close()

    def chat(
        self, sampling: Sampling | None = None, *, seed: int = 0, tools: Given = None, documents: Given = None
    ) -> Conversation:
        """A conversation, which remembers what was said if the model has a chat template: ``.reply(text).text``."""
        conversation = self._conversation(sampling, seed, tools, documents)
        self._conversations.append(conversation)
        return conversation

    def logprobs(
        self,
        prompt: PromptLike,
        completion: str | Completion,
        *,
        temperature: float = 1.0,
        tools: Given = None,
        documents: Given = None,
    ) -> tuple[float, ...]:
        """log π in nats of each token of a completion of the prompt, at ``temperature`` and without truncation.

        A `Completion` has its own tokens. A text is tokenised as a demonstration: after its own tokens comes the one
        that ends it.
        """
        policy = self._policy()
        if isinstance(completion, str):
            group = self._demonstration(prompt, completion, tools, documents)
        else:
            rows = self._rows([prompt], tools, documents)
            [read] = load_prompts(rows, self._format, max_new_tokens=len(completion.token_ids)).items
            written = single_turn(read.token_ids, completion.token_ids, completion.text, finish=completion.finish)
            group = Group(read, (written,))
        batch = collate([group])
        limits = MicrobatchLimits(usual_tokens(policy, len(group.prompt.token_ids)), shared_prompt=True)
        found_T = all_outputs(policy, batch, "logprobs", temperature, limits)[0]
        return tuple(found_T[batch.mask_ET[0]].tolist())

    def score(self, prompt: PromptLike, completion: str) -> float:
        """A reward model's score of a completion; a process reward model's least step value."""
        return self._scored(prompt, completion)[0]

    def step_scores(self, prompt: PromptLike, completion: str) -> tuple[float, ...]:
        """A process reward model's value of each step of a completion: the probability that it is right."""
        if self.kind == "reward_model":
            raise ModelError(f"{self.path}: a reward model scores whole completions: use score()")
        return self._scored(prompt, completion)[1]

    def close(self) -> None:
        """Free the memory. Any later use is an error."""
        for held in (self._engine, *self._conversations):
            if held is not None:
                held.close()
        self._engine, self._model = None, None
        self._conversations.clear()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LoadedModel({self.path!r}, {self.kind}{', closed' if self._model is None else ''})"

    def _conversation(
        self, sampling: Sampling | None, seed: int, tools: Given = None, documents: Given = None
    ) -> Conversation:
        return Conversation(
            self._policy(),
            sampling or self.sampling,
            self._format.system,
            seed,
            self._format.chat_template_kwargs,
            date=self._format.date,
            given=given_by({"tools": tools, "documents": documents}, "this conversation"),
            engine_settings=self._engine_settings,
        )

    def _rows(self, prompts: PromptLike | Sequence[PromptLike], tools: Given, documents: Given) -> Rows:
        conversation = not isinstance(prompts, str) and len(prompts) > 0 and isinstance(prompts[0], Mapping)
        listed = [prompts] if isinstance(prompts, str) or conversation else prompts
        given = {name: value for name, value in (("tools", tools), ("documents", documents)) if value is not None}
        if given and not self._format.chat and any(isinstance(prompt, str) for prompt in listed):
            raise RecipeError(
                f"no effect of {' and '.join(f'`{name}`' for name in given)}: the prompts are plain text; give "
                "messages, or load the model with chat=True"
            )
        return read_rows([{"prompt": prompt, **given} for prompt in listed], name="prompts")

    def _opened(self) -> Policy | ScorerReward:
        if self._model is None:
            raise ModelError(f"{self.path}: this model has been closed: load it again")
        return self._model

    def _policy(self) -> Policy:
        model = self._opened()
        if not isinstance(model, Policy):
            raise ModelError(f"{self.path}: a {self.kind.replace('_', ' ')} gives scores and no text: use score()")
        return model

    def _scored(self, prompt: PromptLike, completion: str) -> tuple[float, tuple[float, ...]]:
        model = self._opened()
        if isinstance(model, Policy):
            raise ModelError(f"{self.path}: a language model has no scores: use logprobs()")
        [[score]] = model.score([self._demonstration(prompt, completion)])
        if score.total is None:
            raise ModelError(f"{self.path}: this completion cannot be scored: {score.error}")
        return score.total, tuple(step.value for step in score.steps)

    def _demonstration(
        self, prompt: PromptLike, completion: str, tools: Given = None, documents: Given = None
    ) -> Group:
        written: str | list[Message] = completion
        if not isinstance(prompt, str):
            written = [{"role": "assistant", "content": completion}]
        rows = read_rows(
            [{**row, "completion": written} for row in self._rows([prompt], tools, documents)], name="prompts"
        )
        [group] = load_demonstrations(rows, self._format).items
        return group


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
