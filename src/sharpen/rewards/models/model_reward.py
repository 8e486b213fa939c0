"""Rewards from a trained scorer, for whole completions or for each step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from sharpen.batch import Batch, SampleIndex
from sharpen.data.chat import ChatFormat
from sharpen.data.chat.generation_prompt import complete_template
from sharpen.data.positions import step_ends
from sharpen.data.tokens import continuation, prompt_ids
from sharpen.errors import RewardError
from sharpen.models.dtype import AskedDtype
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.padding import same_tokens
from sharpen.models.scorer import Kind, Scorer, load_scorer
from sharpen.rewards.models.rendering import Rendered, common_start, positions_of_ends, render
from sharpen.rewards.models.score_cache import Logits, ScoreCache, content_key
from sharpen.rewards.reward import Reward, last_position, sample_name
from sharpen.rewards.steps import Total, required_tokenizer, step_positions, step_values, total_of
from sharpen.runs.lookup import find_model
from sharpen.settings import Name, Settings
from sharpen.types import NOT_DRAWN, Finish, Group, Prompt, Sample, Score, Trajectory


class RewardModelSettings(Settings):
    """Settings of `ModelReward`."""

    path: Name
    """A run (its latest checkpoint), a model folder or a Hub id."""
    batch_tokens: PositiveInt = 8192
    """Tokens per forward pass, padding included."""
    dtype: AskedDtype = "float32"
    """The type of matrix products."""
    device: Name = "auto"
    """The model's device; auto is the GPU if there is one, else the CPU."""
    template: Literal["auto", "scorer", "policy"] = "auto"
    """The chat template for scoring conversations: scorer, policy (the text that the policy read and generated), or
    auto, the scorer's if it has one and its template or vocabulary differs from the policy's."""
    cache_size: NonNegativeInt = 0
    """Number of scores cached across steps, by content. A resumed run starts with an empty cache and recomputes scores
    in other batches, so their last digits may differ."""


class ProcessRewardModelSettings(RewardModelSettings):
    """Settings of `ProcessModelReward`."""

    separator: str = Field(min_length=1)
    """The text that ends a step."""
    total: Total = "min"
    """How step values are aggregated to the completion's reward."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A whole sequence in the scorer's tokens, and the positions, if any, at which its scores are read."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]


class ScorerReward(Reward):
    """The base of rewards from a scorer.

    The model is loaded once, when the tokenizer is known, so that problems with it surface before the first step. If
    the scorer has the policy's vocabulary (apart from a padding token), the trajectory's last sample is scored, in its
    own token ids. Otherwise prompt and completion are retokenised, as those of a demonstration are, followed by the
    scorer's end-of-sequence token if the completion ended with one. If the prompt is a conversation and the scorer has
    its own chat template, the conversation is rendered with it, up to the model's last answer, unless ``template`` says
    otherwise; only so can a scorer with another vocabulary read several turns. A trajectory that exceeds the scorer's
    context fails on its own.

    Duplicates are computed once per call, and across calls if they are among the last ``cache_size`` sequences;
    ``cache`` counts hits and misses.

    Raises `RewardError` if the model is not a trained scorer or a score is not finite, and while scoring if
    `use_tokenizer` was not called.
    """

    kind: ClassVar[Kind]

    def __init__(self, settings: RewardModelSettings) -> None:
        self.settings = settings
        self._scorer: Scorer | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self.own_chat: ChatFormat | None = None
        self.same_tokens = True
        self.cache = ScoreCache(settings.cache_size)

    @property
    def part_names(self) -> tuple[str, ...]:
        return (self.name,)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if self._scorer is None:
            path = find_model(self.settings.path).path
            scorer = load_scorer(path, kind=self.kind, compute_dtype=self.settings.dtype, device=self.settings.device)
            if not scorer.head.weight.any():
                raise RewardError(
                    f"reward {self.name!r}: the head of {path} is 0, so it is not a trained scorer; train one with the "
                    f"method {self.name}"
                )
            self._scorer = scorer
        self._tokenizer = tokenizer
        own = self._scorer.tokenizer
        self.same_tokens = same_tokens(own, tokenizer)
        if self.settings.template == "scorer" and own.chat_template is None:
            raise RewardError(
                f"reward {self.name!r}: template is scorer, but {self.settings.path} has no chat template"
            )
        # The policy's may have got its generation prompt already.
        complete_template(own)
        complete_template(tokenizer)
        differs = not self.same_tokens or own.chat_template != tokenizer.chat_template
        uses_own = self.settings.template == "scorer" or (self.settings.template == "auto" and differs)
        has_own = own.chat_template is not None and uses_own
        self.own_chat = ChatFormat(own, {}, called="the scorer's chat template") if has_own else None

    @property
    def scorer(self) -> Scorer:
        """The model. Raises `RewardError` before `use_tokenizer`."""
        required_tokenizer(self.name, self._tokenizer)
        assert self._scorer is not None
        return self._scorer

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        reads = [[self._read(group.prompt, trajectory) for trajectory in group.trajectories] for group in groups]
        logits = self._known_logits(reads)
        return [
            tuple(self._score_one(group, index, found) for index, found in enumerate(of_group))
            for group, of_group in zip(groups, logits, strict=True)
        ]

    def _read(self, prompt: Prompt, trajectory: Trajectory) -> _Read:
        if self.own_chat is not None and prompt.messages:
            rendered = render(prompt, trajectory, self.own_chat)
            return _Read(rendered.token_ids, self._rendered_places(rendered, trajectory.text))
        if self.settings.template == "scorer":
            raise RewardError(
                f"reward {self.name!r}: template is scorer, but prompt {prompt.id!r} is not a conversation"
            )
        seen = self._seen(prompt, trajectory)
        places = self._places(seen, trajectory.text) if seen.token_ids else ()
        return _Read((*seen.prefix_ids, *seen.token_ids), tuple(len(seen.prefix_ids) + place for place in places))

    @abstractmethod
    def _places(self, seen: Sample, answer: str) -> tuple[int, ...]:
        """The positions, in a sample of the scorer's tokens that ends with ``answer``, at which its scores are read."""

    @abstractmethod
    def _rendered_places(self, rendered: Rendered, answer: str) -> tuple[int, ...]:
        """The positions at which the scores of a rendered conversation's last turn are read; empty if it changed."""

    @abstractmethod
    def _judge(self, trajectory: Trajectory, logits: Sequence[float]) -> Score:
        """The score of a trajectory from its logits at these positions."""

    def _score_one(self, group: Group, index: int, logits: Sequence[float] | None) -> Score:
        if logits is None:
            limit = self.scorer.context_length
            reason = (
                f"{self.name}: the completion is empty, changed by the scorer's chat template, or with its prompt "
                f"longer than the scorer's context of {limit} tokens"
            )
            return Score(None, {self.name: None}, error=reason)
        if not all(map(math.isfinite, logits)):
            raise RewardError(
                f"reward {self.name!r}: the scores {list(logits)} of {sample_name(group, index)} are not all finite"
            )
        return self._judge(group.trajectories[index], logits)

    def _seen(self, prompt: Prompt, trajectory: Trajectory) -> Sample:
        """The last sample, in the scorer's tokens."""
        if self.same_tokens:
            return trajectory.last
        if len(trajectory.samples) > 1 or trajectory.last.answer_start:
            raise RewardError(
                f"reward {self.name!r}: the scorer has other tokens than the policy, so it can read a conversation of "
                "several turns only through its own chat template: set template: scorer"
            )
        tokenizer = self.scorer.tokenizer
        [before] = prompt_ids(tokenizer, [prompt.text])
        ids = continuation(tokenizer, prompt.text, before, trajectory.text)
        if trajectory.last.finish is Finish.EOS and tokenizer.eos_token_id is not None:
            ids = (*ids, tokenizer.eos_token_id)
        return Sample(before, ids, (True,) * len(ids))

    def _known_logits(self, reads: Sequence[Sequence[_Read]]) -> list[list[Logits | None]]:
        """The logits at the positions of each read; None if it has no positions or exceeds the context."""
        keys = [[content_key(read.token_ids, read.positions) for read in of_group] for of_group in reads]
        known: dict[bytes, Logits] = {}
        wanted: list[dict[bytes, _Read]] = []
        seen: set[bytes] = set()
        for of_group, group_keys in zip(reads, keys, strict=True):
            wanted.append({})
            for read, key in zip(of_group, group_keys, strict=True):
                if not read.positions or len(read.token_ids) > self.scorer.context_length:
                    continue
                kept = self.cache.get(key)
                if kept is not None:
                    known[key] = kept
                if kept is not None or key in seen:
                    self.cache.hits += 1
                else:
                    self.cache.misses += 1
                    wanted[-1][key] = read
                    seen.add(key)
        fresh = self._computed([list(of_group.values()) for of_group in wanted if of_group])
        for key, logits in zip((key for of_group in wanted for key in of_group), fresh, strict=True):
            known[key] = logits
            self.cache.put(key, logits)
        return [[known.get(key) for key in group_keys] for group_keys in keys]

    def _computed(self, reads: Sequence[Sequence[_Read]]) -> list[Logits]:
        if not reads:
            return []
        batch, positions = _batch(reads)
        limits = MicrobatchLimits(self.settings.batch_tokens, shared_prompt=True)
        scores_ET = all_outputs(self.scorer, batch, "scores", 1.0, limits)
        return [tuple(scores_ET[b, places].tolist()) for b, places in enumerate(positions)]


class ModelReward(ScorerReward):
    """The score of a trained reward model: its raw logit at the completion's last token."""

    name: str = "reward_model"
    kind = "sequence"

    def _places(self, seen: Sample, answer: str) -> tuple[int, ...]:
        return (last_position(seen),)

    def _rendered_places(self, rendered: Rendered, answer: str) -> tuple[int, ...]:
        return (len(rendered.token_ids) - 1,)

    def _judge(self, trajectory: Trajectory, logits: Sequence[float]) -> Score:
        return Score(logits[0], {self.name: logits[0]})


class ProcessModelReward(ScorerReward):
    """The probability of each step being right, from a trained process reward model at the step's end.

    A step's value is σ(logit). Steps end with ``separator`` (see `sharpen.data.positions.step_ends`), the last one at
    the last token that the model generated; ``total`` aggregates the values.
    """

    name: str = "process_reward_model"
    kind = "token"
    gives_steps = True

    def __init__(self, settings: ProcessRewardModelSettings) -> None:
        super().__init__(settings)
        self._separator, self._total = settings.separator, settings.total

    def _places(self, seen: Sample, answer: str) -> tuple[int, ...]:
        return step_positions(seen, step_ends(answer, self._separator), answer, self.scorer.tokenizer)

    def _rendered_places(self, rendered: Rendered, answer: str) -> tuple[int, ...]:
        if not rendered.offsets:
            raise RewardError(f"reward {self.name!r}: the scorer's tokenizer provides no character offsets")
        return positions_of_ends(rendered, step_ends(answer, self._separator), answer) or ()

    def _judge(self, trajectory: Trajectory, logits: Sequence[float]) -> Score:
        values = torch.tensor(logits, dtype=torch.float64).sigmoid().tolist()
        ends = step_ends(trajectory.text, self._separator)
        total = total_of(values, self._total)
        steps = step_values(trajectory, ends, values, required_tokenizer(self.name, self._tokenizer))
        return Score(total, {self.name: total}, steps)


def _batch(reads: Sequence[Sequence[_Read]]) -> tuple[Batch, list[list[int]]]:
    """A batch whose loss mask marks the positions to be read, and these positions for each of its rows.

    The common prefix of a group, up to the first position to be read, is its prompt.
    """
    prompts, completions, positions, group = [], [], [], []
    for number, of_group in enumerate(reads):
        shared = min(common_start([read.token_ids for read in of_group]), *(min(read.positions) for read in of_group))
        prompts.append(torch.tensor(of_group[0].token_ids[:shared], dtype=torch.long))
        for read in of_group:
            completions.append(torch.tensor(read.token_ids[shared:]))
            positions.append([position - shared for position in read.positions])
            group.append(number)
    tokens_ET = pad_sequence(completions, batch_first=True)
    mask_ET = torch.zeros(tokens_ET.shape, dtype=torch.bool)
    for b, places in enumerate(positions):
        mask_ET[b, places] = True
    batch = Batch(
        prefixes=tuple(prompts),
        samples=SampleIndex.one_each(torch.tensor(group)),
        group_E=torch.tensor(group),
        tokens_ET=tokens_ET,
        mask_ET=mask_ET,
        rewards_E=torch.full((len(group),), torch.nan, dtype=torch.float64),
        truncated_E=torch.zeros(len(group), dtype=torch.bool),
        lengths_E=torch.tensor([len(ids) for ids in completions]),
        versions_ET=torch.full(tokens_ET.shape, NOT_DRAWN),
        completion_limit=tokens_ET.shape[1],
    )
    return batch, positions
