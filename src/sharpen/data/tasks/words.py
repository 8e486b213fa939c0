"""One short sentence that contains two given words, asked of a chat model."""

import re
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from sharpen.data.rows import Rows
from sharpen.data.tasks.task import PromptsOnly, task_rows
from sharpen.settings import Settings
from sharpen.types import Row

WORDS = re.findall(
    r"\w+",
    """
    apple baby beach bird boat book bread bridge cake car cat chair child clock cloud coffee cow dog door
    farmer fire fish flower forest friend garden guitar horse house island king lamp letter milk mirror moon
    mountain music ocean paper pencil rain river road ship snow star stone storm street teacher train tree
    water window
    cold green happy old quiet small
    carry climb drink run sing sleep
    """,
)

_WORD = re.compile(r"[\w'’-]+")
_QUOTES = "\"'“”‘’"


class Words(PromptsOnly, Settings):
    """The task ``words``, over all pairs of a list of common words.

    A pair that is held out is trained on in neither order; its words do occur in other pairs.
    """

    held_out_size: PositiveInt = Field(default=100, lt=1000)
    """Pairs held out; all others are trained on."""
    max_words: PositiveInt = 25
    """Words of the longest sentence that is accepted."""
    seed: NonNegativeInt = 0

    @property
    def name(self) -> str:
        return "words"

    @property
    def answer(self) -> None:
        """None: sentences have no answer to take a majority vote on."""
        return None

    def train_rows(self) -> Rows:
        return task_rows(self.name, "train", self._shuffled()[self.held_out_size :])

    def held_out_rows(self) -> Rows:
        return task_rows(self.name, "held out", self._shuffled()[: self.held_out_size])

    def verify(self, completion: str, *, words: list[str], **_: Any) -> float:
        """1 if the completion is one sentence that contains all of ``words``. Surrounding white space and quotation
        marks are ignored.

        A sentence is a single line that starts with a capital letter, has exactly one of ``. ! ?``, at its end, at most
        ``max_words`` words, and at least two words besides ``words``, so a mere list of these is not a sentence. Each
        word must match exactly except for case: "dogs" is not "dog", "Dog" is. A completion that contains "the words
        dog and cat" scores 0: the prompt contains it, and repeating the prompt would otherwise pass.
        """
        sentence = completion.strip().strip(_QUOTES)
        said = _WORD.findall(sentence.lower())
        is_sentence = (
            sentence[:1].isupper()
            and len(re.findall(r"[.!?\n]", sentence)) == 1
            and sentence[-1] in ".!?"
            and len(said) <= self.max_words
            and len([word for word in said if word not in words]) >= 2
        )
        repeats_the_request = " ".join(_WORD.findall(_listed(*words))) in " ".join(said)
        return float(is_sentence and not repeats_the_request and set(words) <= set(said))

    def reference(self, row: Row) -> str:
        first, second = row["words"]
        return f"Today {first} and {second} came to my mind."

    def _shuffled(self) -> list[dict[str, Any]]:
        pairs = list(combinations(WORDS, 2))
        rng = np.random.default_rng(self.seed)
        turned = rng.random(len(pairs)) < 0.5
        return [_row(*(pairs[i][::-1] if turned[i] else pairs[i])) for i in rng.permutation(len(pairs))]


def _row(first: str, second: str) -> dict[str, Any]:
    request = f"Write one short sentence that contains {_listed(first, second)}."
    return {"prompt": [{"role": "user", "content": request}], "words": [first, second]}


def _listed(first: str, second: str) -> str:
    return f"the words {first} and {second}"
