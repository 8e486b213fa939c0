"""A penalty for repetition."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import Field

from sharpen.rewards.verifier import Verifier

# In scripts written without spaces each letter is a word, as is each punctuation mark.
_WORD = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+|[^\w\s]|_")


class Repetition(Verifier):
    """``penalty`` times the share of the completion's word n-grams that repeat an earlier one; 0 at best.

    With N n-grams, U of them distinct: penalty · (1 − U / N). ``ngram`` is n. Words are case-insensitive runs of
    letters and digits, single punctuation marks, and single letters of scripts written without spaces. A completion of
    fewer than n words scores 0.
    """

    name: ClassVar[str] = "repetition"

    ngram: int = Field(4, ge=1)
    """n, words per n-gram."""
    penalty: float = Field(-1.0, le=0)
    """The reward where every n-gram repeats an earlier one."""

    def __call__(self, completion: str, **row: Any) -> float:
        words = _WORD.findall(completion.casefold())
        total = len(words) - self.ngram + 1
        if total < 1:
            return 0.0
        different = len({tuple(words[i : i + self.ngram]) for i in range(total)})
        return self.penalty * (1 - different / total)
