"""Which completions of a run are written down, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sharpen.data.token_texts import TokenTexts
from sharpen.evaluation.runner import Evaluation
from sharpen.runs.folder import RunFolder
from sharpen.runs.samples import tokens_of
from sharpen.types import Group


class SampleWriter:
    """Writes a step's completions, with their tokens where that is asked for, and the answers to held-out prompts."""

    def __init__(
        self,
        folder: RunFolder,
        tokenizer: Any,
        say: Callable[[str], None],
        *,
        sampled: bool,
        conversations: bool,
        samples_every: int,
        tokens_every: int,
    ) -> None:
        """``samples_every`` and ``tokens_every`` count steps, 0 meaning never; ``sampled`` if the policy writes the
        completions: those of data are only written with their tokens."""
        self._folder, self._say = folder, say
        self._texts = TokenTexts(tokenizer)
        self._sampled, self._conversations = sampled, conversations
        self._samples_every, self._tokens_every = samples_every, tokens_every

    def tokens_due(self, step: int) -> bool:
        """Whether the step's completions are written with their tokens: the first ones are, too."""
        return self._tokens_every > 0 and (step == self._samples_every or step % self._tokens_every == 0)

    def due(self, step: int) -> bool:
        """Whether the step's completions are written."""
        sampled = self._sampled and self._samples_every > 0 and step % self._samples_every == 0
        return sampled or self.tokens_due(step)

    def write(self, step: int, groups: Sequence[Group], computed: Sequence[Mapping[str, Any]] | None) -> None:
        """Write the completions of a step if they are due, with what was ``computed`` for their tokens, if anything."""
        if not self.due(step):
            return
        tokens = None
        if computed is not None:
            tokens = tokens_of([t for group in groups for t in group.trajectories], self._texts.of, computed)
        self._tell(
            self._folder.write_samples(
                step, groups, conversations=self._conversations, every=self._samples_every, tokens=tokens
            )
        )

    def write_prepared(self, groups: Sequence[Group]) -> None:
        """Write what was sampled before the first step."""
        if self._samples_every:
            self._tell(self._folder.write_samples(0, groups, conversations=self._conversations))

    def write_held_out(self, step: int, evaluation: Evaluation, every: int) -> None:
        """Write the answers to held-out prompts; ``every`` is the number of steps between two evaluations."""
        if self._samples_every and evaluation.right:
            rows = evaluation.answer_rows(conversations=self._conversations)
            self._tell(self._folder.write_held_out(step, rows, every=every))

    def _tell(self, damaged: Sequence[str]) -> None:
        for damage in damaged:
            self._say(damage)
