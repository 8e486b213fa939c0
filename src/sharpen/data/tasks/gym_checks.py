"""Corrections of reasoning-gym's scorers (0.1.25): wrong answers that they accept, and answers that they execute.

`DECIDED` tasks are scored here, 1 or 0. For `EXACT` tasks, a full score counts only if the check here agrees; partial
credit is kept. `GUARDED` scorers call ``eval`` on the answer, or sympy's ``parse_expr``, which calls it: they only get
answers that are plain data or a plain formula.
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
"""(answer, dataset entry) → whether the answer is right."""

MOST_CHARACTERS = 2000
"""Maximum length of an answer that is parsed as Python."""
MOST_DIGITS = 30
LARGEST_NUMBER = 10**12
LARGEST_POWER = 100
"""Largest exponent in a formula; `LARGEST_NUMBER` is the largest number elsewhere."""

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
    """The answer parsed as a Python expression, not evaluated; None if it is not one."""
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        with PARSER_LOCK:
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr, used: list[int]) -> Fraction | None:
    """The value of an expression of integers and + - * /, None for anything else. Appends its integers to ``used``."""
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
    """Whether the answer is an expression that uses each of the numbers once and equals the target."""
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
        # Compared as text, since True == 1 in Python.
        return json.dumps(json.loads(answer)) == json.dumps(json.loads(entry["answer"]))
    except (ValueError, RecursionError):
        return False


def _near(answer: str, entry: Mapping[str, Any]) -> bool:
    given, right = _fraction(answer.replace(",", "")), _fraction(str(entry["answer"]))
    return given is not None and right is not None and abs(given - right) <= min(Fraction(1, 10_000), right / 1000)


def _only_number(answer: str, entry: Mapping[str, Any]) -> bool:
    """Whether the text contains exactly one number, sign included, and it is the expected one."""
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
    # The original gives 1 to any non-empty answer.
    "game_of_life_halting": _same_text,
    # Partial credit is the matching prefix over the shorter text: "0" scores 1 for 0.3125.
    "coin_flip": _near,
    # Only the first number counts, without its sign: -5, 5/2 and "5 or 6" score as 5.
    "gsm_symbolic": _only_number,
    # Accepts any four numbers in range, rounds 24.9 to 24, and evaluates the answer.
    "puzzle24": lambda answer, entry: _makes(answer, entry["metadata"]["numbers"], 24),
    # Accepts further numbers written without digits, such as floor(pi), and evaluates the answer.
    "countdown": lambda answer, entry: _makes(answer, entry["metadata"]["numbers"], entry["metadata"]["target"]),
    # Numbers may be off by up to 1.
    "number_sorting": _sorted_numbers,
}
EXACT: dict[str, Check] = {
    # "nan" scores 1.
    "complex_arithmetic": _of_these(r"[-+\d.eij() ]+"),
    # For a negative reference, wrong numbers score above 1.
    "calendar_arithmetic": _calendar,
    # With ten or more letters, the word followed by anything scores 1.
    "figlet_font": _same_letters,
    # A larger board that contains the right one in its corner scores 1, and so does true for 1.
    "game_of_life": _same_json,
    # The right words followed by more words score 1.
    "letter_jumble": _same_words,
    "word_sorting": lambda answer, entry: (
        [word.strip() for word in answer.split(",")] == list(entry["metadata"]["sorted_words"])
    ),
    # The right letters followed by more letters score nearly 1.
    "spell_backward": _same_text,
    # Anything that is not a number is ignored; without a real solution, any text without numbers scores 1.
    "polynomial_equations": _solutions,
    # Every A, B and C in the text counts as a button.
    "quantum_lock": _of_these(r"[A-Ca-c](?:(?:\s++(?:(?:→|->|,)\s*+)?|(?:→|->|,)\s*+)[A-Ca-c])*"),
    # "5 weeks" scores as 5 days.
    "time_intervals": _of_these(r"-?\d++(?: days?)?(?:,? ?\d+:\d+(?::\d+)?(?:\.\d+)?)?|-?\d+:\d+(?::\d+)?(?:\.\d+)?"),
}


def _plain_data(answer: str) -> bool:
    """Whether evaluating the answer only builds lists of constants, or fails with a syntax error."""
    node = _parsed(answer)
    if node is None:
        return len(answer) <= MOST_CHARACTERS
    return all(isinstance(part, (ast.List, ast.Tuple, ast.Constant, ast.expr_context)) for part in ast.walk(node))


def _plain_formula(answer: str) -> bool:
    """Whether the answer consists only of numbers, one-letter names, + - * / ** and calls of known functions."""
    node = _parsed(answer)
    if node is None:
        return False
    called = {id(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
    return all(_is_formula(part, id(part) in called) for part in ast.walk(node))


def _is_formula(part: ast.AST, called: bool) -> bool:
    if isinstance(part, ast.Constant):
        return _is_number(part, LARGEST_NUMBER)
    if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Pow):
        # 9**9**9 would be computed in full.
        return all(
            not isinstance(power, ast.Pow) and (not isinstance(power, ast.Constant) or _is_number(power, LARGEST_POWER))
            for power in ast.walk(part.right)
        )
    if isinstance(part, ast.Name):
        # E and pi are numbers; other long names would be classes and functions of sympy.
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
    """Whether the source of a task's scorer calls a function that may execute the answer; False without source."""
    try:
        source = inspect.getsource(kind.score_answer)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return False
    return _EXECUTES.search(_HARMLESS.sub("", source)) is not None
