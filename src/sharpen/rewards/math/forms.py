"""Compares mathematical answers part by part: sets, tuples, intervals, matrices and relations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from sharpen.rewards.math.bases import in_base
from sharpen.rewards.math.choices import choice, labelled, several_choices
from sharpen.rewards.math.text import number, split_unit, words

Equal = Callable[[str, str], bool]
"""Whether two unstructured expressions are equal."""

Kind = Literal["list", "set", "sequence", "union", "ratio", "matrix", "relation", "expression"]

_OPENINGS = {r"\{": r"\}", "(": ")", "[": "]", r"\langle": r"\rangle"}
_TOKEN = re.compile(r"\\begin\{(\w+)\*?\}|\\end\{(\w+)\*?\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPEN = {"{", "(", "[", r"\{", r"\langle", r"\lfloor", r"\lceil"}
_CLOSE = {"}", ")", "]", r"\}", r"\rangle", r"\rfloor", r"\rceil"}
_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\equiv", r"\approx", r"\sim", r"\subset", r"\subseteq")
_MOST_REPEATED = 4
"""Collections whose lengths differ by a larger factor are not compared element by element."""
_FLIPPED = {">": "<", r"\ge": r"\le"}
_NAME = r"(?:[a-zA-Z]|\\(?!pi\b)[a-z]+)(?:\s*_\s*(?:\w|\{\w+\}))?'*"
_NAMES = rf"\(\s*{_NAME}\s*(?:,\s*{_NAME}\s*)*\)"
_SUBJECT = re.compile(rf"{_NAME}(?:\s*{_NAMES})?|{_NAMES}")
_SYMBOL = re.compile(r"[a-zA-Z]|\\(?:theta|alpha|beta|phi|lambda)")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_REALS = r"\mathbb{R}"
_LDOTS = r"\ldots"
_FOREIGN_INTERVAL = re.compile(r"([\[\]])([^\[\](){},;]+[,;][^\[\](){},;]+)([\[\]])")


@dataclass(frozen=True, slots=True)
class MathForm:
    """The outermost structure of the answer ``text``.

    ``mark`` holds a sequence's brackets, a matrix's number of columns, or a relation's operators; ``parts`` the
    elements or sides.
    """

    kind: Kind
    text: str
    parts: tuple[str, ...]
    mark: tuple[str, ...] = ()


def same(expected: str, answer: str, equal: Equal) -> bool:
    """Whether two cleaned answers are the same; ``equal`` compares the unstructured parts."""
    # Without blanks, the list 1, 234 is the number 1,234.
    if _tight(expected) == _tight(answer) and form(expected).kind == form(answer).kind:
        return True
    numbers = number(expected), number(answer)
    if None not in numbers:
        return numbers[0] == numbers[1]
    based = in_base(expected), in_base(answer)
    if based != (None, None):
        return based[0] == based[1]
    chosen = several_choices(expected), several_choices(answer)
    if None not in chosen:
        return chosen[0] == chosen[1]
    if (labels := (labelled(expected), labelled(answer))) != (None, None):
        return _same_choice(expected, answer, labels, equal)
    if _hyphenated(expected) == _hyphenated(answer):
        for read in (words, choice):
            texts = read(expected), read(answer)
            if texts != (None, None):
                return texts[0] == texts[1]
    (expected_value, expected_unit), (answer_value, answer_unit) = split_unit(expected), split_unit(answer)
    if (expected_unit is None) != (answer_unit is None):
        expected_value, expected_unit = split_unit(expected, one_letter=True)
        answer_value, answer_unit = split_unit(answer, one_letter=True)
    if expected_unit is not None or answer_unit is not None:
        if None not in (expected_unit, answer_unit) and expected_unit != answer_unit:
            return False
        return same(expected_value, answer_value, equal)
    return _same_form(form(expected), form(answer), equal)


def _hyphenated(text: str) -> bool:
    """Whether a text reads as words with a hyphen, and could be a difference of products: ab-cd."""
    return "-" in text and words(text) is not None


def _same_choice(
    expected: str, answer: str, labels: tuple[tuple[str, str] | None, tuple[str, str] | None], equal: Equal
) -> bool:
    """Compare with the letter and the content of a choice; both count where both are given."""
    wanted, given = labels
    if wanted is not None and given is not None:
        return wanted[0] == given[0] and same(wanted[1], given[1], equal)
    letter, content = next(label for label in labels if label is not None)
    other = answer if given is None else expected
    return choice(other) == letter if choice(other) else same(content, other, equal)


def form(text: str) -> MathForm:
    """The outermost structure of a cleaned answer."""
    if text == _REALS:
        text = r"(-\infty,\infty)"
    text = _without_thousands(text)
    parts, _ = _split(text, (",", ";"))
    if len(parts) > 1:
        return MathForm("list", text, tuple(parts))
    parts, operators = _split(text, _RELATIONS)
    if operators:
        return MathForm("relation", text, tuple(parts), tuple(operators))
    parts, _ = _split(text, (":",))
    if len(parts) > 1:
        # Not a quotient: 12:30 and 6:15 may be times.
        return MathForm("ratio", text, tuple(parts))
    parts, _ = _split(text, (r"\cup",))
    if len(parts) > 1:
        return MathForm("union", text, tuple(parts))
    if matrix := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix[2].strip().removesuffix(r"\\").split(r"\\")]
        if len({len(row) for row in rows}) == 1:
            return MathForm("matrix", text, tuple(cell.strip() for row in rows for cell in row), (str(len(rows[0])),))
    if len(_PLUS_MINUS.findall(text)) == 1:
        sides = [_PLUS_MINUS.sub(sign, text) for sign in ("+", "-")]
        return MathForm("list", text, tuple(side.strip().removeprefix("+").strip() for side in sides))
    if foreign := _FOREIGN_INTERVAL.fullmatch(text):
        opening, inner, closing = foreign.groups()
        text = ("(" if opening == "]" else "[") + inner + (")" if closing == "[" else "]")
    return _bracketed(text) or MathForm("expression", text, (text,))


def _without_thousands(text: str) -> str:
    """``text`` without the commas of a number such as 1,234 that is all of it, or a side of a relation.

    In brackets, (1,234) is a pair.
    """
    if "," not in text:
        return text
    sides, operators = _split(text, _RELATIONS)
    plain = [
        side.replace(",", "") if len(_split(side, (",",))[0]) > 1 and number(split_unit(side)[0]) is not None else side
        for side in sides
    ]
    if plain == sides:
        return text
    return " ".join(part for pair in zip(plain, [*operators, ""], strict=True) for part in pair).strip()


def _bracketed(text: str) -> MathForm | None:
    for opening, closing in _OPENINGS.items():
        if not text.startswith(opening) or not _one_bracket(text):
            continue
        ending = next(end for end in _OPENINGS.values() if text.endswith(end))
        parts, _ = _split(text[len(opening) : -len(ending)].strip(), (",", ";"))
        if opening == r"\{":
            builder = ending != closing or _split(parts[0], (r"\mid", "|", ":"))[1]
            return None if builder else MathForm("set", text, tuple(parts))
        if len(parts) > 1:
            # Angle brackets are another way to write a vector.
            brackets = ("(", ")") if opening == r"\langle" else (opening, ending)
            return MathForm("sequence", text, tuple(parts), brackets)
    return None


def _same_form(expected: MathForm, answer: MathForm, equal: Equal) -> bool:
    kinds = {expected.kind, answer.kind}
    if "relation" in kinds:
        return _same_relation(expected, answer, equal)
    if kinds <= {"set", "list"}:
        lengths = sorted((len(expected.parts), len(answer.parts)))
        if lengths[1] > _MOST_REPEATED * lengths[0]:
            return False
        subjects = _subjects(expected), _subjects(answer)
        # Without names the assignment of the values is lost: x = 1, y = 2 is not 2, 1.
        if subjects[0] != subjects[1] and max(map(len, subjects)) > 1:
            return False
    if kinds <= {"set", "list"} and "set" in kinds:
        return _within(expected.parts, answer.parts, equal) and _within(answer.parts, expected.parts, equal)
    if kinds == {"set", "expression"}:
        return len(expected.parts) == len(answer.parts) == 1 and same(expected.parts[0], answer.parts[0], equal)
    if len(kinds) == 2:
        return False
    if expected.kind == "expression":
        # math-verify passes over dots: 1+2+…+n is not 1+2+n.
        dotted = _LDOTS in expected.text, _LDOTS in answer.text
        return dotted[0] == dotted[1] and equal(expected.text, answer.text)
    if len(expected.parts) != len(answer.parts):
        return False
    if expected.kind in ("list", "union"):
        return _matched(expected.parts, answer.parts, equal)
    return expected.mark == answer.mark and all(
        same(one, other, equal) for one, other in zip(expected.parts, answer.parts, strict=True)
    )


def _subjects(of: MathForm) -> frozenset[str]:
    """The symbols that the parts of a list assign values to."""
    sides = [_split(part, ("=",)) for part in of.parts]
    return frozenset(_tight(found[0]) for found, signs in sides if signs and _SUBJECT.fullmatch(found[0]))


def _same_relation(expected: MathForm, answer: MathForm, equal: Equal) -> bool:
    intervals = _interval(expected), _interval(answer)
    if intervals != (None, None):
        intervals = intervals[0] or _member(expected), intervals[1] or _member(answer)
        if None not in intervals:
            return intervals[0] == intervals[1] or _same_interval(intervals, equal)
        if expected.kind == answer.kind:
            return equal(expected.text, answer.text)
        texts = [found[1] if found else of.text for found, of in zip(intervals, (expected, answer), strict=True)]
        return same(texts[0], texts[1], equal)
    (subject, value), (other_subject, other_value) = _value(expected, equal), _value(answer, equal)
    if value is not None and other_value is not None:
        if subject and other_subject and subject != other_subject:
            return equal(expected.text, answer.text)
        if same(value, other_value, equal):
            return True
    # Two equations, or an equation and a value: x^2 + y^2 = 1 is not 1.
    return expected.kind == answer.kind and equal(expected.text, answer.text)


def _same_interval(intervals: Sequence[tuple[str, str] | None], equal: Equal) -> bool:
    (subject, between), (other_subject, other_between) = (found for found in intervals if found)
    return subject == other_subject and same(between, other_between, equal)


def _value(of: MathForm, equal: Equal) -> tuple[str, str | None]:
    """The subject (empty if none) and the last value of a chain such as ``x = 2 + 3 = 5``.

    The value is None if the sides differ, as in an equation to be solved.
    """
    if of.kind != "relation":
        return "", of.text
    subject, sides = "", list(of.parts)
    if set(of.mark) - {"=", r"\in"} or (r"\in" in of.mark and len(of.mark) > 1):
        return "", None
    if _SUBJECT.fullmatch(sides[0]):
        subject = _tight(sides.pop(0))
    for left, right in pairwise(sides):
        if not left or not right or not same(left, right, equal):
            return "", None
    return subject, sides[-1]


def _interval(of: MathForm) -> tuple[str, str] | None:
    """An inequality in one symbol as the symbol and its interval; None for anything else."""
    if of.kind != "relation" or set(of.mark) - {"<", ">", r"\le", r"\ge"}:
        return None
    parts, operators = list(of.parts), list(of.mark)
    if all(operator in _FLIPPED for operator in operators):
        parts, operators = parts[::-1], [_FLIPPED[operator] for operator in reversed(operators)]
    if any(operator in _FLIPPED for operator in operators):
        return None
    if len(parts) == 2:
        if _SYMBOL.fullmatch(parts[0]):
            parts, operators = [r"-\infty", *parts], ["<", *operators]
        elif _SYMBOL.fullmatch(parts[1]):
            parts, operators = [*parts, r"\infty"], [*operators, "<"]
    if len(parts) != 3 or not _SYMBOL.fullmatch(parts[1]):
        return None
    low, symbol, high = parts
    if any(re.search(rf"(?<![a-zA-Z\\]){re.escape(symbol)}(?![a-zA-Z])", side) for side in (low, high)):
        return None
    opening, closing = "(" if operators[0] == "<" else "[", ")" if operators[1] == "<" else "]"
    return symbol, f"{opening}{low},{high}{closing}"


def _member(of: MathForm) -> tuple[str, str] | None:
    """``x ∈ [2, ∞)`` as the symbol and its interval; None for anything else."""
    if of.kind != "relation" or of.mark != (r"\in",) or not _SYMBOL.fullmatch(of.parts[0]):
        return None
    interval = form(of.parts[1])
    return (of.parts[0], of.parts[1]) if interval.kind == "sequence" and len(interval.parts) == 2 else None


def _matched(expected: Sequence[str], answer: Sequence[str], equal: Equal) -> bool:
    """Whether the two are equal as multisets."""
    left = list(answer)
    for part in expected:
        found = next((i for i, other in enumerate(left) if same(part, other, equal)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _within(parts: Sequence[str], others: Sequence[str], equal: Equal) -> bool:
    return all(any(same(part, other, equal) for other in others) for part in parts)


def _split(text: str, separators: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """``text`` split at the separators outside brackets, and these separators."""
    parts, found, depth, environments = [""], [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[1]:
            environments += 1
        elif token[2]:
            environments -= 1
        elif token[0] in _OPEN:
            depth += 1
        elif token[0] in _CLOSE:
            depth -= 1
        elif token[0] in separators and depth == 0 and environments == 0:
            found.append(token[0])
            parts.append("")
            continue
        parts[-1] += token[0]
    return [part.strip() for part in parts], found


def _one_bracket(text: str) -> bool:
    """Whether the bracket that opens ``text`` closes at its end."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth == 0:
            return token.end() == len(text) and text.endswith(tuple(_OPENINGS.values()))
    return False


def _tight(text: str) -> str:
    """Without blanks, except between two words or numbers."""
    return re.sub(r"\s+(?!\w)|(?<!\w)\s+", "", text)
