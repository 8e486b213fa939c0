"""A model to use from Python: it generates, answers, and gives log-probabilities or scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

from sharpen.data.chat.messages import given_by
from sharpen.data.collate import collate
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.errors import ModelError, RecipeError
from sharpen.launch.source_rows import prompts_of
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.rewards.models.model_reward import (
    ScorerReward,
)
from sharpen.rollout.chat import Conversation
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.engines import make_engine
from sharpen.rollout.generation import generate
from sharpen.rollout.settings import EngineSettings
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
