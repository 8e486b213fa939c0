"""Where the scorers of reasoning-gym are not to be trusted alone: what they accept wrongly, and what they execute.

`DECIDED` tasks are scored here, 1 or 0. For those of `EXACT` a full score stands only if the check here agrees; what
their scorers give for a part of the answer is kept. Those of `GUARDED` have scorers that call ``eval``, or sympy's
``parse_expr``, which does, on the answer: it reaches them only if it is plain data or a plain formula.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from sharpen.system.python_parser import PARSER_LOCK

Check = Callable[[str, Mapping[str, Any]], bool]
"""(answer, entry of the task) → whether the answer is right."""

MOST_CHARACTERS = 2000
"""Answers to be parsed as Python are no longer than this."""
MOST_DIGITS = 30
LARGEST_NUMBER = 10**12
LARGEST_POWER = 100
"""The largest numbers of a formula, and in its powers."""

_EXECUTES = re.compile(r"\b(?:eval|exec|parse_expr|sympify|parse_latex|compile|loads?)\s*\(")
_HARMLESS = re.compile(r"\bjson\.loads?\(|\bnp\.loadtxt\(|\bre\.compile\(|\beval\(entry\[")
_NUMBER = re.compile(
    rf"\s*([-+]?(?:\d{{1,{MOST_DIGITS}}}(?:\.\d{{0,{MOST_DIGITS}}})?|\.\d{{1,{MOST_DIGITS}}})(?:[eE][-+]?\d{{1,3}})?)\s*"
)
_FRACTION = re.compile(rf"\s*([-+]?\d{{1,{MOST_DIGITS}}})\s*/\s*(\d{{1,{MOST_DIGITS}}})\s*")
_FUNCTIONS = {
    "exp", "log", "ln", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "Abs",
}  # fmt: skip


def _fraction(text: str) -> Fraction | None:
    if found := _NUMBER.fullmatch(text):
        return Fraction(found[1])
    found = _FRACTION.fullmatch(text)
    return Fraction(int(found[1]), int(found[2])) if found and int(found[2]) else None


def _parsed(text: str) -> ast.expr | None:
    """The answer as a Python expression, not evaluated; None if it is none."""
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        with PARSER_LOCK:
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr, used: list[int]) -> Fraction | None:
    """The value of whole numbers combined by + - * /, which are added to ``used``; None if it is anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, used)
        return None if inner is None else -inner
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _value(node.left, used), _value(node.right, used)
    if left is None or right is None:
        return None
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    if isinstance(node.op, ast.Mult):
        return left * right
    return left / right if isinstance(node.op, ast.Div) and right else None


def _makes(answer: str, numbers: list[int], target: int) -> bool:
    """Whether the answer is an expression of these numbers, each once, that has this value."""
    used: list[int] = []
    node = _parsed(answer)
    try:
        return node is not None and _value(node, used) == target and sorted(used) == sorted(numbers)
    except RecursionError:  # a thousand signs before a number
        return False


def _same_text(answer: str, entry: Mapping[str, Any]) -> bool:
    return answer.strip().casefold() == str(entry["answer"]).strip().casefold()


def _same_words(answer: str, entry: Mapping[str, Any]) -> bool:
    return answer.casefold().split() == str(entry["answer"]).casefold().split()


def _same_letters(answer: str, entry: Mapping[str, Any]) -> bool:
    return "".join(answer.casefold().split()) == "".join(str(entry["answer"]).casefold().split())


def _same_json(answer: str, entry: Mapping[str, Any]) -> bool:
    try:
        # Compared as texts: to Python, true is 1.
        return json.dumps(json.loads(answer)) == json.dumps(json.loads(entry["answer"]))
    except (ValueError, RecursionError):
        return False


def _near(answer: str, entry: Mapping[str, Any]) -> bool:
    given, right = _fraction(answer.replace(",", "")), _fraction(str(entry["answer"]))
    return given is not None and right is not None and abs(given - right) <= min(Fraction(1, 10_000), right / 1000)


def _only_number(answer: str, entry: Mapping[str, Any]) -> bool:
    """One number in the text, in digits and with its sign, and it is the expected one."""
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", answer)
    given = _fraction(numbers[0].replace(",", "")) if len(numbers) == 1 else None
    return given is not None and given == _fraction(str(entry["answer"]))


def _calendar(answer: str, entry: Mapping[str, Any]) -> bool:
    given, right = _fraction(answer), _fraction(str(entry["answer"]))
    return _same_text(answer, entry) if right is None else given == right


def _sorted_numbers(answer: str, entry: Mapping[str, Any]) -> bool:
    try:
        given = json.loads(answer.replace("'", '"'))
        right = json.loads(str(entry["answer"]).replace("'", '"'))
        return isinstance(given, list) and [Decimal(str(n)) for n in given] == [Decimal(str(n)) for n in right]
    except (ValueError, InvalidOperation, RecursionError):
        return False


def _solutions(answer: str, entry: Mapping[str, Any]) -> bool:
    right = entry["metadata"]["real_solutions"]
    if not right:
        return answer.strip() in ('""', "''")
    given = answer.split(",")
    return len(given) == len(right) and all(_fraction(part) is not None for part in given)


def _of_these(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda answer, entry: compiled.fullmatch(answer.strip()) is not None


DECIDED: dict[str, Check] = {
    # Any answer that is not empty scored 1.
    "game_of_life_halting": _same_text,
    # "0" scored 1 for 0.3125: what the shorter of the two begins with.
    "coin_flip": _near,
    # The first number of the text decided, without its sign: -5, 5/2 and "5 or 6" scored as 5.
    "gsm_symbolic": _only_number,
    # Any four numbers in range were allowed, and 24.9 was 24; besides, the answer was evaluated.
    "puzzle24": lambda answer, entry: _makes(answer, entry["metadata"]["numbers"], 24),
    "countdown": lambda answer, entry: _makes(answer, entry["metadata"]["numbers"], entry["metadata"]["target"]),
    # Numbers could be off by 1.
    "number_sorting": _sorted_numbers,
}
EXACT: dict[str, Check] = {
    # "nan" scored 1.
    "complex_arithmetic": _of_these(r"[-+\d.eij() ]+"),
    # The nearness to a negative number was more than 1.
    "calendar_arithmetic": _calendar,
    # The word with anything after it scored 1, from ten letters on.
    "figlet_font": _same_letters,
    # A larger board with the right one in its corner scored 1, and so did true for 1.
    "game_of_life": _same_json,
    # The right words with further ones after them scored 1.
    "letter_jumble": _same_words,
    "word_sorting": lambda answer, entry: (
        [word.strip() for word in answer.split(",")] == list(entry["metadata"]["sorted_words"])
    ),
    # The right letters with further ones after them scored nearly 1.
    "spell_backward": _same_text,
    # What is no number was ignored; where there is no solution, anything without numbers scored 1.
    "polynomial_equations": _solutions,
    # The A, B and C of any text were taken for buttons.
    "quantum_lock": _of_these(r"[A-Ca-c](?:(?:\s++(?:(?:→|->|,)\s*+)?|(?:→|->|,)\s*+)[A-Ca-c])*"),
    # "5 weeks" scored as 5 days.
    "time_intervals": _of_these(r"-?\d++(?: days?)?(?:,? ?\d+:\d+(?::\d+)?(?:\.\d+)?)?|-?\d+:\d+(?::\d+)?(?:\.\d+)?"),
}


def _plain_data(answer: str) -> bool:
    """Whether evaluating the answer cannot do more than build lists of constants, or fails before it does anything."""
    node = _parsed(answer)
    if node is None:
        return len(answer) <= MOST_CHARACTERS
    return all(isinstance(part, (ast.List, ast.Tuple, ast.Constant, ast.expr_context)) for part in ast.walk(node))


def _plain_formula(answer: str) -> bool:
    """Whether the answer is a formula of numbers, names, + - * / ** and calls of known functions, and no more."""
    node = _parsed(answer)
    if node is None:
        return False
    called = {id(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
    return all(_is_formula(part, id(part) in called) for part in ast.walk(node))


def _is_formula(part: ast.AST, called: bool) -> bool:
    if isinstance(part, ast.Constant):
        return _is_number(part, LARGEST_NUMBER)
    if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Pow):
        # 9**9**9 would be computed before anything is compared.
        return all(
            not isinstance(power, ast.Pow) and (not isinstance(power, ast.Constant) or _is_number(power, LARGEST_POWER))
            for power in ast.walk(part.right)
        )
    if isinstance(part, ast.Name):
        # E and pi are numbers; longer names would be classes and functions of sympy.
        return part.id in _FUNCTIONS if called else len(part.id) == 1 or part.id == "pi"
    if isinstance(part, ast.Call):
        return isinstance(part.func, ast.Name) and len(part.args) == 1 and not part.keywords
    return isinstance(
        part,
        (ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub, ast.expr_context),
    )


def _is_number(constant: ast.Constant, largest: float) -> bool:
    value = constant.value
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= largest


GUARDED: dict[str, Callable[[str], bool]] = {
    "binary_matrix": _plain_data,
    "n_queens": _plain_data,
    "spiral_matrix": _plain_data,
    "string_insertion": _plain_data,
    "intermediate_integration": _plain_formula,
    "polynomial_multiplication": _plain_formula,
    "simple_integration": _plain_formula,
}


def executes_answers(kind: type) -> bool:
    """Whether the source of a task's scorer calls what may execute the answer. Where there is no source: no."""
    try:
        source = inspect.getsource(kind.score_answer)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return False
    return _EXECUTES.search(_HARMLESS.sub("", source)) is not None
