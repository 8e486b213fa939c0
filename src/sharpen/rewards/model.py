"""Rewards by a trained scorer: of the whole completion, or of each of its steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from sharpen.data.positions import step_ends
from sharpen.errors import RewardError
from sharpen.models.dtype import AskedDtype
from sharpen.models.plan import plan
from sharpen.models.scorer import Kind, Scorer, load_scorer
from sharpen.named_model import find_model
from sharpen.rewards.reward import Reward, last_position, sample_name
from sharpen.rewards.steps import Total, required_tokenizer, step_positions, total_of
from sharpen.settings import Settings
from sharpen.types import Batch, Completion, Finish, Group, Prompt, Score, StepValue


class ModelSettings(Settings):
    """Settings of `ModelReward`."""

    path: str = Field(min_length=1)
    """A run (its latest checkpoint), a model folder or a hub id."""
    batch_tokens: PositiveInt = 8192
    """Tokens computed at once, padding included."""
    dtype: AskedDtype = "float32"
    device: str = "auto"
    """Where the model computes: auto is the GPU where there is one, else the CPU."""


class StepModelSettings(ModelSettings):
    """Settings of `ProcessModelReward`."""

    separator: str = Field(min_length=1)
    """What a step ends with."""
    total: Total = "min"
    """What the completion is worth, of the values of its steps."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A completion in the scorer's tokens, the group it belongs to, and the tokens at which its score is read."""

    group: int
    completion: Completion
    positions: tuple[int, ...]


class ScorerReward(Reward):
    """What the rewards by a scorer share.

    The model is loaded once, when the tokenizer is known, so that what is wrong with it is an error before the first
    step. The completion's own token ids are scored where the scorer has the policy's vocabulary. Otherwise the text of
    prompt and completion is tokenised anew, each apart, and ends with the scorer's end-of-sequence token if the
    completion ended with one. A completion that does not fit into the scorer's context fails, alone.

    Raises `RewardError` if the model is no trained scorer or a score is not finite, and while scoring if
    `use_tokenizer` was not called.
    """

    kind: ClassVar[Kind]

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._scorer: Scorer | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self.same_tokens = True

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if self._scorer is None:
            path = find_model(self.settings.path).path
            scorer = load_scorer(path, kind=self.kind, compute_dtype=self.settings.dtype, device=self.settings.device)
            if not scorer.head.weight.any():
                raise RewardError(
                    f"reward {self.name!r}: the head of {path} is 0, so it is no trained scorer; train one with the "
                    f"method {self.name}"
                )
            self._scorer = scorer
        self._tokenizer = tokenizer
        self.same_tokens = tokenizer.get_vocab() == self._scorer.tokenizer.get_vocab()

    @property
    def scorer(self) -> Scorer:
        """The model. Raises `RewardError` before `use_tokenizer`."""
        required_tokenizer(self.name, self._tokenizer)
        assert self._scorer is not None
        return self._scorer

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        prompts = [self._prompt_ids(group.prompt) for group in groups]
        reads = []
        for number, group in enumerate(groups):
            for completion in group.completions:
                seen = self._seen(completion)
                reads.append(_Read(number, seen, self._places(seen)))
        logits = iter(self._logits(prompts, reads))
        return [
            tuple(self._score_one(group, index, next(logits)) for index in range(len(group.completions)))
            for group in groups
        ]

    @abstractmethod
    def _places(self, seen: Completion) -> tuple[int, ...]:
        """The tokens of a completion in the scorer's own tokens at which its score is read."""

    @abstractmethod
    def _judge(self, completion: Completion, logits: Sequence[float]) -> Score:
        """The score of a completion whose logits at these tokens are known."""

    def _score_one(self, group: Group, index: int, logits: Sequence[float] | None) -> Score:
        if logits is None:
            limit = self.scorer.context_length
            reason = f"{self.name}: empty, or with its prompt longer than the scorer's {limit} tokens"
            return Score(None, {self.name: None}, error=reason)
        if not all(map(math.isfinite, logits)):
            raise RewardError(
                f"reward {self.name!r} gave {list(logits)} to {sample_name(group, index)}; not all is finite"
            )
        return self._judge(group.completions[index], logits)

    def _prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        if self.same_tokens:
            return prompt.token_ids
        tokenizer = self.scorer.tokenizer
        # A chat template has written the token that begins a text already.
        begun = tokenizer.bos_token is not None and prompt.text.startswith(tokenizer.bos_token)
        return tuple(tokenizer(prompt.text, add_special_tokens=not begun, verbose=False)["input_ids"])

    def _seen(self, completion: Completion) -> Completion:
        if self.same_tokens:
            return completion
        tokenizer = self.scorer.tokenizer
        ids = tuple(tokenizer(completion.text, add_special_tokens=False, verbose=False)["input_ids"])
        if completion.finish is Finish.EOS and tokenizer.eos_token_id is not None:
            ids = (*ids, tokenizer.eos_token_id)
        return replace(completion, token_ids=ids, trained=(True,) * len(ids), sample_logprobs=(), versions=())

    @torch.no_grad()
    def _logits(self, prompts: Sequence[tuple[int, ...]], reads: Sequence[_Read]) -> list[tuple[float, ...] | None]:
        """The scorer's output at the tokens of each read; None where a completion has no tokens or does not fit."""
        scorer = self.scorer
        found: list[tuple[float, ...] | None] = [None] * len(reads)
        fitting = [
            i
            for i, read in enumerate(reads)
            if 0 < len(read.completion.token_ids) <= scorer.context_length - len(prompts[read.group])
        ]
        if not fitting:
            return found
        batch = _batch(prompts, [reads[i] for i in fitting])
        scores_BT = torch.zeros(batch.tokens_BT.shape, dtype=torch.float64)
        for rows in plan(
            batch,
            tokens_per_microbatch=self.settings.batch_tokens,
            shared=scorer.plain,
            cost=scorer.cost,
            padded=not scorer.plain,
        ):
            outputs = scorer.outputs(batch, rows, 1.0, frozenset({"scores"}))
            assert outputs.scores_BT is not None
            scores_BT += outputs.scores_BT.cpu()
        for b, i in enumerate(fitting):
            found[i] = tuple(scores_BT[b, list(reads[i].positions)].tolist())
        return found


class ModelReward(ScorerReward):
    """The score of a trained reward model: its raw output, a logit, at the completion's last token."""

    name = "reward_model"
    kind = "sequence"

    def _places(self, seen: Completion) -> tuple[int, ...]:
        return (last_position(seen),)

    def _judge(self, completion: Completion, logits: Sequence[float]) -> Score:
        return Score(logits[0], {self.name: logits[0]})


class ProcessModelReward(ScorerReward):
    """The probability that a trained process reward model gives each step of being right, at the step's end.

    A step's value is σ(logit). Steps end with ``separator`` (see `sharpen.data.positions.step_ends`), the last one at
    the last token that the model wrote; ``total`` makes one number of them.
    """

    name = "process_reward_model"
    kind = "token"
    gives_steps = True

    def __init__(self, settings: StepModelSettings) -> None:
        super().__init__(settings)
        self._separator, self._total = settings.separator, settings.total

    def _places(self, seen: Completion) -> tuple[int, ...]:
        return step_positions(seen, step_ends(seen.text, self._separator), self.scorer.tokenizer)

    def _judge(self, completion: Completion, logits: Sequence[float]) -> Score:
        values = torch.tensor(logits, dtype=torch.float64).sigmoid().tolist()
        ends = step_ends(completion.text, self._separator)
        positions = step_positions(completion, ends, required_tokenizer(self.name, self._tokenizer))
        total = total_of(values, self._total)
        return Score(total, {self.name: total}, tuple(map(StepValue, positions, values)))


def _batch(prompts: Sequence[tuple[int, ...]], reads: Sequence[_Read]) -> Batch:
    """The completions as a batch in which the tokens to be read are marked as the trained ones."""
    tokens_BT = pad_sequence([torch.tensor(read.completion.token_ids) for read in reads], batch_first=True)
    mask_BT = torch.zeros(tokens_BT.shape, dtype=torch.bool)
    for b, read in enumerate(reads):
        mask_BT[b, list(read.positions)] = True
    return Batch(
        prompts=tuple(torch.tensor(ids) for ids in prompts),
        group_B=torch.tensor([read.group for read in reads]),
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        rewards_B=torch.full((len(reads),), torch.nan, dtype=torch.float64),
        truncated_B=torch.zeros(len(reads), dtype=torch.bool),
        completion_limit=tokens_BT.shape[1],
    )
