import re
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from hostile_texts import random_texts
from sharpen.rewards.text.language import Language
from sharpen.rewards.text.prose import prose

ENGLISH = "We first add the two numbers, and then we divide the sum by three."  # 14 words
GERMAN = "Zuerst addieren wir die beiden Zahlen und teilen dann durch drei."  # 11 words
CHINESE = "首先计算两个数字的和，然后除以三。"  # 15 letters
JAPANESE = "まず二つの数の和を計算し、次に三で割ります。"  # 20 letters
RUSSIAN = "Сначала вычислим сумму двух чисел, а затем разделим на три."  # 10 words
UKRAINIAN = "Спочатку додамо два числа, а потім поділимо суму на три."  # 10 words


@pytest.mark.parametrize(
    ("language", "completion", "share"),
    [
        ("en", ENGLISH, 1),
        ("en", f"{ENGLISH} {GERMAN}", 14 / 25),
        ("de", f"{ENGLISH} {GERMAN}", 11 / 25),
        ("en", f"{ENGLISH}\n{CHINESE}", 14 / 29),
        ("zh", f"{ENGLISH}\n{CHINESE}", 15 / 29),
        ("en", f"{ENGLISH} 首先 {ENGLISH}", 28 / 30),
        ("zh", JAPANESE, 0),
        ("ja", JAPANESE, 1),
        ("ja", CHINESE, 0),
        ("ru", f"{RUSSIAN} {UKRAINIAN}", 10 / 20),
        ("uk", f"{RUSSIAN} {UKRAINIAN}", 10 / 20),
        ("fr", ENGLISH, 0),
        ("ko", "두 수의 합을 계산합니다 and more", 4 / 6),
        ("el", "Πρώτα προσθέτουμε τους αριθμούς", 1),
        ("th", "บวกเลข", 1),
        ("en", "", 0),
        ("en", "12 + 3 = 15", 0),
    ],
)
def test_the_share_of_a_languages_words(language: str, completion: str, share: float) -> None:
    assert Language(language=language)(completion) == pytest.approx(share)


@pytest.mark.parametrize(
    "between",
    [
        "$\\text{wobei die Zahlen ganz sind}$",
        "\\[ \\text{wobei die Zahlen ganz sind} \\]",
        "\\begin{align} wobei die Zahlen \\end{align}",
        "```python\nwobei_die = 'Zahlen ganz sind'\n```",
        "`wobei die Zahlen`",
        "<think>",
        "https://wobei.die/zahlen",
        "x = y + z",
        "\\frac{1}{2}",
    ],
)
def test_formulas_code_and_tags_are_no_words(between: str) -> None:
    assert Language(language="en")(f"{ENGLISH} {between}\n{ENGLISH}") == 1


def test_prose_is_what_a_pattern_leaves() -> None:
    foreign = re.compile(
        r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)|\$[^$\n]*\$"
        r"|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\\[a-zA-Z]+|</?\w+>|https?://\S+",
        re.DOTALL,
    )
    pieces = [
        *(
            "`",
            "```",
            "$",
            "$$",
            "\\[",
            "\\]",
            "\\(",
            "\\)",
            "\\",
            "\\begin{a}",
            "\\end{a}",
            "\\begin{a*}",
            "\\end{a*}",
        ),
        *(
            "\\begin{b}",
            "\\end{b}",
            "\\begin",
            "{",
            "}",
            "<a>",
            "</a",
            "<",
            ">",
            "http://",
            "https://x",
            "\n",
            " ",
            "é",
            "x",
        ),
    ]
    for text in random_texts(pieces, count=10_000):
        assert prose(text) == foreign.sub("\n", text), repr(text)


@pytest.mark.parametrize(
    ("script", "completion", "share"),
    [
        ("latin", f"{ENGLISH} {GERMAN}", 1),
        ("latin", f"{ENGLISH} {CHINESE}", 14 / 29),
        ("Cyrillic", f"{RUSSIAN} two words", 10 / 12),
        ("cjk", "二つの数", 2 / 4),
        ("hiragana", "二つの数", 2 / 4),
        ("devanagari", "हिन्दी में two", 2 / 3),
        ("arabic", "مرحبا بالعالم", 1),
    ],
)
def test_the_share_of_a_script(script: str, completion: str, share: float) -> None:
    assert Language(script=script)(completion) == pytest.approx(share)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either language"),
        ({"language": "en", "script": "latin"}, "give either language"),
        ({"language": "xx"}, "unknown language 'xx'"),
        ({"language": "english"}, "unknown language 'english'"),
        ({"script": "latn"}, r"unknown script 'latn'\. Did you mean `LATIN`"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Language(**settings)


def test_without_the_package_only_scripts_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    assert Language(language="ko")("두 수") == 1
    assert Language(script="latin")("two") == 1
    with pytest.raises(ValidationError, match=r'pip install "sharpen\[format\]"'):
        Language(language="en")
