"""A reward for the share of a completion in one language or script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache, lru_cache
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from sharpen.rewards.text.prose import prose
from sharpen.rewards.verifier import Verifier
from sharpen.suggest import did_you_mean

_SENTENCE_END = re.compile(r"(?<=[.!?…;:])\s+|(?<=[。！？；])|\n+")
LETTERS_TO_CLASSIFY = 20
"""Sentences with fewer letters are joined with the next one before classification."""

_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
_SCRIPTS = {
    "am": ("ETHIOPIC",), "ar": ("ARABIC",), "as": ("BENGALI",), "be": ("CYRILLIC",), "bg": ("CYRILLIC",),
    "bn": ("BENGALI",), "dz": ("TIBETAN",), "el": ("GREEK",), "fa": ("ARABIC",), "gu": ("GUJARATI",), "he": ("HEBREW",),
    "hi": ("DEVANAGARI",), "hy": ("ARMENIAN",), "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ka": ("GEORGIAN",),
    "kk": ("CYRILLIC",), "km": ("KHMER",), "kn": ("KANNADA",), "ko": ("HANGUL",), "ky": ("CYRILLIC",), "lo": ("LAO",),
    "mk": ("CYRILLIC",), "ml": ("MALAYALAM",), "mn": ("CYRILLIC",), "mr": ("DEVANAGARI",), "ne": ("DEVANAGARI",),
    "or": ("ORIYA",), "pa": ("GURMUKHI",), "ps": ("ARABIC",), "ru": ("CYRILLIC",), "si": ("SINHALA",),
    "sr": ("CYRILLIC",), "ta": ("TAMIL",), "te": ("TELUGU",), "th": ("THAI",), "ug": ("ARABIC",), "uk": ("CYRILLIC",),
    "ur": ("ARABIC",), "zh": ("CJK",),
}  # fmt: skip
_ALONE = {
    language
    for language, scripts in _SCRIPTS.items()
    if not any(set(scripts) & set(others) for other, others in _SCRIPTS.items() if other != language)
}


class Language(Verifier):
    """The share of the completion's words that are in the target language, or script, from 0 to 1.

    DeepSeek-R1's language consistency reward (2501.12948, 2.3.2): words of the target language / words. Code,
    formulas, LaTeX commands, tags, URLs and single Latin letters do not count as words. In scripts written without
    spaces (Chinese, Japanese, Thai, …) each letter counts as a word.

    ``language`` is an ISO 639-1 code such as ``en``, ``de`` or ``zh``: a word counts if it is in the language's script
    and in a sentence of the language. py3langid classifies the sentences, short ones together with the next; if no
    other language shares the script (Greek, Hebrew, Korean, Thai, …), the script alone decides. ``script`` is a script
    such as ``latin``, ``cyrillic`` or ``cjk``: the first word of the Unicode names of its letters. A completion without
    words scores 0.

    Raises ValueError at construction for an unknown language or script.
    """

    name: ClassVar[str] = "language"

    language: str | None = Field(None, min_length=2)
    """The target language, an ISO 639-1 code such as `en`."""
    script: str | None = Field(None, min_length=2)
    """The target script, such as `latin`, `cyrillic` or `cjk`, instead of `language`."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if (self.language is None) == (self.script is None):
            raise ValueError("give either language (such as en) or script (such as latin)")
        if self.language is not None and self.language not in _ALONE:
            known = _languages()
            if self.language not in known:
                raise ValueError(
                    f"unknown language {self.language!r}.{did_you_mean(self.language, known)} "
                    f"Known: {', '.join(sorted({*known, *_ALONE}))}"
                )
        if self.script is not None and self.script.upper() not in _all_scripts():
            raise ValueError(f"unknown script {self.script!r}.{did_you_mean(self.script.upper(), _all_scripts())}")
        return self

    def __call__(self, completion: str, **row: Any) -> float:
        text = prose(completion)
        if self.script is not None:
            scripts: tuple[str, ...] = (self.script.upper(),)
        else:
            scripts = _SCRIPTS.get(self.language or "", ("LATIN",))
        words = [script for _, script in _words(text)]
        if not words:
            return 0.0
        if self.language is None or self.language in _ALONE:
            return sum(script in scripts for script in words) / len(words)
        # Kana distinguish Japanese from Chinese; other scripts say nothing about the words around them.
        scripts_to_classify = {*scripts, "HIRAGANA", "KATAKANA"} if "CJK" in scripts else set(scripts)
        return sum(
            sum(script in scripts for _, script in part)
            for part in _parts(text, scripts_to_classify)
            if _language_of(" ".join(word for word, _ in part)) == self.language
        ) / len(words)


Word = tuple[str, str]
"""A word and its script."""


def _words(text: str) -> Iterator[Word]:
    word, script = "", ""
    for character in [*text, " "]:
        category = unicodedata.category(character)[0]
        if word and (category == "M" or character in "'’-"):
            word += character
            continue
        found = _script(character) if category == "L" else ""
        if word and (found != script or found in _UNSPACED):
            if len(word) > 1 or script != "LATIN":
                yield word, script
            word = ""
        script = found
        if found:
            word += character


def _parts(text: str, scripts: Collection[str]) -> Iterator[list[Word]]:
    """The words of these scripts by sentence, short sentences joined with the next."""
    part: list[Word] = []
    for sentence in _SENTENCE_END.split(text):
        part += [word for word in _words(sentence) if word[1] in scripts]
        if sum(len(word) for word, _ in part) >= LETTERS_TO_CLASSIFY:
            yield part
            part = []
    if part:
        yield part


@cache
def _script(character: str) -> str:
    # Letters without a Unicode name belong to no script.
    return unicodedata.name(character, "UNKNOWN").split()[0].partition("-")[0]


@cache
def _all_scripts() -> frozenset[str]:
    return frozenset(_script(chr(c)) for c in range(0x20000) if unicodedata.category(chr(c)).startswith("L"))


@lru_cache(maxsize=10_000)
def _language_of(sentence: str) -> str:
    import py3langid

    return str(py3langid.classify(sentence)[0])


def _languages() -> list[str]:
    """The languages that py3langid can identify."""
    try:
        import py3langid
    except ModuleNotFoundError as error:
        raise ValueError(f'needs the package {error.name}; install it with: pip install "sharpen[format]"') from error
    return [str(language) for language, _ in py3langid.rank("")]
