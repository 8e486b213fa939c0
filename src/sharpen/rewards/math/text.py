"""Normalises the notation of mathematical answers, and parses numbers (exactly), words, choices and units.

Only plain numbers are evaluated here; `sharpen.rewards.math.forms` compares everything else.
"""

from __future__ import annotations

import re
from fractions import Fraction

from sharpen.rewards.math.chinese import has_chinese, rewritten, split_measure
from sharpen.rewards.text.extraction import boxed

_CHARACTERS = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-", "\uff0d": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "∗": "*",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "φ": r"\phi ", "λ": r"\lambda ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ",
    "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "°": r"^\circ ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "⟨": r"\langle ", "⟩": r"\rangle ", "…": r"\ldots ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2062": "", "\u200b": "",
}  # fmt: skip
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")


def _binomial(found: re.Match[str]) -> str:
    """``C_5^2``; C_1 and C_2 may be constants with a power."""
    of, chosen = int(found[1]), int(found[2])
    return rf"\binom{{{of}}}{{{chosen}}}" if of > 2 and chosen <= of else found[0]


def _scaled(found: re.Match[str]) -> str:
    # Keep the rest of \\text{}: 5 \\text{ million dollars}.
    inside = "\\text" in found[0] and not found[0].rstrip().endswith("}")
    return rf"\times 10^{{{_SCALES[found[1]]}}}" + (r"\text{" if inside else "")


_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}"),
        (r"√\s*(?=[({])|√\s*(\d+|[a-z])", lambda m: rf"\sqrt{{{m[1]}}}" if m[1] else "sqrt"),
        (r"\\(?:left|right|[bB]ig+[lrm]?)(?![a-zA-Z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|phantom\{[^{}]*\})", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|textnormal|mbox|bf|rm|operatorname)\s*\{", r"\\text{"),
        (r"\\(?:leqslant|leq)(?![a-zA-Z])", r"\\le "),
        (r"\\(?:geqslant|geq)(?![a-zA-Z])", r"\\ge "),
        (r"\\neq(?![a-zA-Z])", r"\\ne "),
        (r"\\(?:varnothing)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:lt)(?![a-zA-Z])", "<"),
        (r"\\(?:gt)(?![a-zA-Z])", ">"),
        (r"\\(?:degree|deg)(?![a-zA-Z])", r"^\\circ "),
        (r"\\(?:[dch]dots|dots[cbmio]?|cdots)(?![a-zA-Z])|(?<=[,+\-*<\s])\.{3}|\.{3}(?=\s*[,+*<])", r"\\ldots "),
        (r"\\mathbb\s*([A-Z])(?![a-zA-Z])", r"\\mathbb{\1}"),
        # Congruences: \\pmod{7}, \\pmod 7, (mod 7), \\bmod 7.
        (r"\(?\s*(?:\\[pb]?mod|(?<![a-zA-Z\\])mod)(?![a-zA-Z])\s*\{?\s*(\w+)\s*\}?\s*\)?", r" \\pmod{\1}"),
        # Combinations as Chinese textbooks write them: C_5^2.
        (r"(?<![a-zA-Z\\])(?:C|\\text\s*\{\s*C\s*\})_\{?(\d+)\}?\^\{?(\d+)\}?", _binomial),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        # Thousands: 1{,}000 and 1\,000 are numbers in LaTeX, 1, 000 is not.
        (r"(?<=\d)\s*\{,\}\s*(?=\d{3}(?!\d))", ""),
        (r"(?<=\d)\\[,!]\s*(?=\d{3}(?!\d))", ""),
        (r"(?<=\d),\\!\s*(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[,;:! ]|\\q?quad(?![a-zA-Z])|~|\\thinspace", " "),
        (r"\\%|\\text\s*\{\s*(?:%|percent|per cent|pct)\s*\}", "%"),
        (r"(?<=[\d}])\s*(?:percent|per cent|pct)$", "%"),
        (r"(?<![a-zA-Z\\])(?:infinity|infty|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (r"(?<![a-zA-Z\\])(pi|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan)(?![a-zA-Z])", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s+(\d)(?!\d)", r"\\sqrt{\1}"),
        (r"\\text\s*\{\s*(?:and|or)\s*\}", ","),
        (r",?(?<![a-zA-Z\\])\s+(?:and|or)\s+(?![a-zA-Z]{2})", ","),
        (r"(?<=\d)\s*(?:\\text\s*\{\s*)?(hundred|thousand|million|billion|trillion)(?![a-z])\s*\}?", _scaled),
        (r"(?<=:\d\d)\s*(?:\\text\s*\{\s*)?([aApP])\.?\s?[mM]\.?\s*\}?\.?$", lambda m: rf"\text{{{m[1].lower()}m}}"),
        (r"\*\*", "^"),
        (r"(?<![\w.])\.(?=\d)", "0."),
    )
]  # fmt: skip

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(rf"([+-]?)\s*({_DECIMAL})(?:[eE]([+-]?\d{{1,4}}))?\s*(%?)")
_TIMES_POWER = re.compile(
    rf"([+-]?)\s*({_DECIMAL})\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*([+-]?\d{{1,4}})\s*\}}|(\d))"
)
_FRACTION = re.compile(
    rf"([+-]?)\s*(?:(\d+)\s+|(\d+)\s*(?=\\frac))?"
    rf"(?:\\frac\s*\{{\s*([+-]?)\s*({_DECIMAL})\s*\}}\s*\{{\s*([+-]?)\s*({_DECIMAL})\s*\}}|\\frac\s*(\d)\s*(\d)"
    rf"|({_DECIMAL})\s*/\s*(\d+))\s*(%?)"
)  # fmt: skip
_RECURRING = re.compile(
    r"([+-]?)\s*(\d*)\.(\d*)(?:\\(?:overline|dot|bar)\s*(?:\{\s*(\d+)\s*\}|(\d))|\\dot\{?(\d)\}?(\d*)\\dot\{?(\d)\}?)"
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '’.-]+[^\W\d_]+)*\.?")
_UNIT_IN_TEXT = re.compile(
    r"(?P<value>.*\S)\s*\\text\s*\{(?P<unit>[^{}]*[^\W\d_][^{}]*)\}(?P<power>\s*\^\s*(?:\d|\{\s*-?\d\s*\}))?", re.DOTALL
)
_UNIT_IN_LETTERS = re.compile(
    r"(?P<value>.*[\d})%])\s*(?<![a-zA-Z\\])(?P<unit>[^\W\d_]{2,}\.?(?:[ /][^\W\d_]+\.?)*|[^\W\d_]/[^\W\d_]+)"
    r"(?P<power>\s*\^\s*(?:\d|\{\s*-?\d\s*\}))?",
    re.DOTALL,
)
_ONE_LETTER_UNIT = re.compile(r"(?P<value>.*\d)\s+(?P<unit>[mgshLlN])(?P<power>\s*\^\s*\{?[23]\}?)?")
# Words that are not part of a unit: "5 or more" is not 5.
_NO_UNITS = {
    "and", "or", "if", "than", "not", "more", "less", "at", "least", "most", "about", "approximately", "to", "no",
    "none", "from", "over", "under", "only", "mod", "modulo", "base", "is", "are", "was", "were", "be", "but", "maybe",
    "perhaps", "either", "neither", "nor", "when", "where", "which", "that", "for", "except", "unless", "wrong",
    "plus", "minus", "squared", "cubed", "factorial", "halves", "thirds", "fourths", "fifths", "tenths", "hundredths",
    "thousandths",
}  # fmt: skip
_MOST_UNIT_WORDS = 4

# Synonyms of units; any other unit only equals itself.
_UNIT_NAMES = {
    name: names[0]
    for names in (
        ("cm", "centimeter", "centimetre"), ("mm", "millimeter", "millimetre"), ("m", "meter", "metre"),
        ("km", "kilometer", "kilometre"), ("in", "inch", "inche"), ("ft", "foot", "feet"), ("yd", "yard"),
        ("mi", "mile"), ("kg", "kilogram"), ("g", "gram"), ("mg", "milligram"), ("lb", "pound"), ("oz", "ounce"),
        ("s", "sec", "second"), ("min", "minute"), ("h", "hr", "hour"), ("day",), ("week",), ("month",), ("yr", "year"),
        ("l", "liter", "litre"), ("ml", "milliliter", "millilitre"), ("degree", "deg"), ("dollar", "usd"),
        ("mph", "miles per hour", "mi/h"), ("km/h", "kmh", "kph", "kilometers per hour"),
        ("m/s", "meters per second", "metres per second"), ("th", "st", "nd", "rd"), ("cent",), ("euro", "eur"),
    )
    for name in names
}  # fmt: skip


def clean(text: str) -> str:
    """``text`` in a normal form: signs, fractions, spaces and brackets have one notation."""
    while (inner := boxed(text)) is not None:
        text = inner
    text = text.strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**")):
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    text = rewritten(text)
    for character, spelling in _CHARACTERS.items():
        text = text.replace(character, spelling)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    while text.endswith((".", ",", ";")):
        text = text[:-1].rstrip()
    while text.startswith("{") and text.endswith("}") and boxed(rf"\boxed{text}") == text[1:-1]:
        text = text[1:-1].strip()
    wrapped = re.fullmatch(r"\\text\s*\{\s*([-+]?[\d.,/]+)\s*\}", text)
    return wrapped[1] if wrapped else text


def nesting(text: str) -> int:
    """The nesting depth of a text's brackets."""
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest


def number(text: str) -> Fraction | None:
    """The exact value of a cleaned integer, decimal, fraction, mixed number or percentage; None for other text."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1].strip()
    if found := _NUMBER.fullmatch(text):
        sign, digits, exponent, percent = found.groups()
        return _signed(sign, _decimal(digits, exponent), percent)
    if found := _TIMES_POWER.fullmatch(text):
        sign, digits, braced, bare = found.groups()
        return _signed(sign, _decimal(digits, braced or bare), "")
    if found := _FRACTION.fullmatch(text):
        sign, spaced, joined, *rest, percent = found.groups()
        above_sign, above, below_sign, below, digit_above, digit_below, plain_above, plain_below = rest
        numerator = _decimal(above or digit_above or plain_above)
        denominator = _decimal(below or digit_below or plain_below)
        if denominator == 0:
            return None
        value = numerator / denominator
        if (above_sign == "-") != (below_sign == "-"):
            value = -value
        whole = spaced or joined
        if whole is not None:
            if above_sign or below_sign or not 0 <= value < 1:
                return None
            value += int(whole)
        return _signed(sign, value, percent)
    if found := _RECURRING.fullmatch(text):
        sign, before, after, block, digit, *ends = found.groups()
        recurring = block or digit or "".join(ends)
        tail = Fraction(int(recurring), 10 ** len(recurring) - 1) / 10 ** len(after)
        return _signed(sign, _decimal(f"{before or 0}.{after}") + tail, "")
    return None


def words(text: str) -> str | None:
    """A cleaned text in lower case if it consists of words only, else None.

    A single letter is a variable or a choice, not a word, and ``a-b`` a difference. Two consonants, such as xy, are a
    product unless they are inside ``\\text{}``.
    """
    plain = " ".join(_TEXT.sub(r" \1 ", text).split())
    if re.fullmatch(r"[^\W\d_](?:-[^\W\d_])+", plain):
        return None
    if not _WORDS.fullmatch(plain) or len(plain.rstrip(".")) < 2 or re.fullmatch("[b-df-hj-np-tv-z]{2}", text):
        return None
    return plain.rstrip(".").casefold()


def split_unit(text: str, one_letter: bool = False) -> tuple[str, str | None]:
    """A cleaned text without its final unit, and the unit's canonical name; None if it has none.

    A unit is a final ``\\text{}``, or after a number a known unit name or a word of at least four letters; with
    ``one_letter`` also a letter separated from the number, which could also be a factor: ``5 m``. ``\\$`` and ``$``
    before a number are dollars. Chinese measure words are units too.
    """
    if money := re.fullmatch(r"(-?)\s*\\?\$\s*(-?\s*[\d.].*)", text):
        return (money[1] + money[2]).strip(), "dollar"
    if degrees := re.fullmatch(r"(.*[\d})])\s*\^\s*\\circ\s*", text):
        return degrees[1].strip(), "degree"
    if (measured := split_measure(text)) is not None:
        return measured
    found = _UNIT_IN_TEXT.fullmatch(text) or _UNIT_IN_LETTERS.fullmatch(text)
    if found is None and one_letter:
        found = _ONE_LETTER_UNIT.fullmatch(text)
    if found is None or found["value"].count("{") != found["value"].count("}"):
        return text, None
    name = " ".join(found["unit"].replace(".", "").split())
    if has_chinese(name):
        return text, None
    if _NO_UNITS & set(name.casefold().split()) or len(name.split()) > _MOST_UNIT_WORDS:
        return text, None
    unit, known = _unit_name(name)
    if found.re is _UNIT_IN_LETTERS and not known and len(name) < 4:
        return text, None
    power = re.search(r"-?\d", found["power"] or "")
    return found["value"].strip(), unit + (f"^{power[0]}" if power else "")


def _unit_name(name: str) -> tuple[str, bool]:
    """A unit's canonical name, and whether the unit is known."""
    power = ""
    for prefix, digit in (("square ", "^2"), ("sq ", "^2"), ("cubic ", "^3"), ("cu ", "^3")):
        if name.casefold().startswith(prefix):
            name, power = name[len(prefix) :], digit
    folded = name.casefold()
    for candidate in (name, folded, folded.removesuffix("s"), folded.removesuffix("es")):
        if candidate in _UNIT_NAMES:
            return _UNIT_NAMES[candidate] + power, True
    return folded.removesuffix("s") + power, bool(power)


def _decimal(digits: str, exponent: str | None = None) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", "")) * Fraction(10) ** int(exponent or 0)


def _signed(sign: str, value: Fraction, percent: str) -> Fraction:
    if percent:
        value /= 100
    return -value if sign == "-" else value
