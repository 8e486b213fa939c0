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
        """Sentences cannot be put to the vote."""
        return None

    def train_rows(self) -> Rows:
        return task_rows(self.name, "train", self._shuffled()[self.held_out_size :])

    def held_out_rows(self) -> Rows:
        return task_rows(self.name, "held out", self._shuffled()[: self.held_out_size])

    def verify(self, completion: str, *, words: list[str], **_: Any) -> float:
        """1 if the completion is one sentence with all of ``words``; blanks and quotation marks around it are
        free.

        A sentence is a single line that begins with a capital letter, has just one of ``. ! ?``, at its end,
        no more than ``max_words`` words, and at least two besides the words asked for, so that a list of
        these two is no sentence. Each word must occur as it is: "dogs" is not "dog", "Dog" is. The request is
        such a sentence itself: what says "the words dog and cat", as it does, repeats it and counts for nothing.
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
