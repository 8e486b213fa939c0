"""The tasks of reasoning-gym that evaluate an answer as Python, and which answers may be evaluated.

Their scorers hand the text to ``eval`` or to sympy's ``parse_expr``, which is ``eval`` as well: what a model writes
would be run in the trainer's own process. No answer of these tasks needs more than numbers, names, operators and, in
formulas, the usual functions; what contains more is not handed on.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from typing import Literal

EVALUATED: dict[str, Literal["list", "formula"]] = {
    "binary_matrix": "list",
    "countdown": "formula",
    "intermediate_integration": "formula",
    "n_queens": "list",
    "polynomial_multiplication": "formula",
    "puzzle24": "formula",
    "simple_integration": "formula",
    "spiral_matrix": "list",
    "string_insertion": "list",
}
"""What each of them expects to evaluate."""

FUNCTIONS = frozenset(
    {
        "Abs",
        "Integer",
        "Rational",
        "acos",
        "acosh",
        "acot",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "cos",
        "cosh",
        "cot",
        "coth",
        "csc",
        "exp",
        "ln",
        "log",
        "sec",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
    }
)
"""What a formula may call."""

_NO_TOKEN = (tokenize.ENCODING, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


def is_harmless(answer: str, kind: Literal["list", "formula"]) -> bool:
    """Whether evaluating an answer does no more than arithmetic, or make a list.

    There is no attribute, no keyword, no name with two underscores, and no call but of `FUNCTIONS` in a formula; nor
    is there text within a formula, for sympy evaluates that too. What Python cannot cut into tokens is not evaluated.
    """
    try:
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(answer.strip()).readline) if t.type not in _NO_TOKEN]
    except (tokenize.TokenError, SyntaxError):
        return True
    before = None
    for token in tokens:
        if token.type == tokenize.NAME and (keyword.iskeyword(token.string) or "__" in token.string):
            return False
        if token.type == tokenize.STRING and (kind == "formula" or token.string[0] not in "'\""):
            return False
        if token.string in (".", ":=", "@"):
            return False
        if token.string == "(" and before is not None and _is_called(before, kind):
            return False
        before = token
    return True


def _is_called(before: tokenize.TokenInfo, kind: Literal["list", "formula"]) -> bool:
    """Whether a bracket after this token calls something that is no function of a formula."""
    if before.type == tokenize.NAME:
        return kind == "list" or before.string not in FUNCTIONS
    return before.type == tokenize.STRING or before.string in (")", "]", "}")
