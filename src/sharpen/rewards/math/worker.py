"""Worker process of `sharpen.rewards.math.verifier`, run as a script.

Reads JSON lines ``{"expected", "answer", …}`` from standard input and writes a line ``{"equal": bool}`` for
each. Both answers are one expression or relation, in LaTeX or plain text.
"""

from __future__ import annotations

import re
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.logic import And
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational

from sharpen.system.worker_program import Answer, serve

DIGITS = 60
RELATIVE_ERROR = sympy.Float("1e-40", DIGITS)

# Keep units, as math-verify would take the t of 3t for one. Keep R and r as two symbols.
_SPELLING = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_IN_A_BASE = re.compile(r"\d\s*_")
_READING = ConversionConfig(lowercase_symbols=False)


def equal(expected: str, answer: str) -> bool:
    """Whether both can be parsed, math-verify finds them equal, and no exact check refutes it."""
    is_real = not (should_treat_as_complex(expected) or should_treat_as_complex(answer))
    left, right = read(expected, is_real), read(answer, is_real)
    if left is None or right is None:
        return False
    try:
        return same(left, right)
    except MemoryError:
        raise
    # sympy raises any exception for objects that it cannot compare.
    except Exception:  # noqa: BLE001
        return False


def read(text: str, is_real: bool) -> Any:
    """The text as a sympy object with exact decimals; None if it cannot be parsed."""
    if _IN_A_BASE.search(text):  # the parser would drop the base
        return None
    try:
        found = latex2sympy(
            normalize_latex(text, _SPELLING),
            is_real=is_real,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_READING,
        )
    except MemoryError:
        raise
    # The parser raises plain Exception, and sympy may raise anything while it builds the object.
    except Exception:  # noqa: BLE001
        return None
    return _with_imaginary_unit(exact(found))


def exact(found: Any) -> Any:
    """The same, evaluated, with decimals as fractions: 0.1 is 1/10 and 9% is 9/100."""
    if isinstance(found, sympy.MatrixBase):
        return found.applyfunc(exact)
    if isinstance(found, sympy.UnevaluatedExpr):
        return exact(found.args[0])
    if isinstance(found, sympy.Float):
        return sympy.Rational(str(found))
    if isinstance(found, sympy.Symbol) and found.name == "e":
        return sympy.E
    if isinstance(found, (sympy.Expr, Relational)) and found.args:
        evaluate = {"evaluate": False} if isinstance(found, Relational) else {}
        return found.func(*(exact(part) for part in found.args), **evaluate)
    return found


def _with_imaginary_unit(found: Any) -> Any:
    """i as the imaginary unit, unless it may be the index of a sum or product."""
    if isinstance(found, sympy.Basic) and not found.has(sympy.Sum, sympy.Product):
        return found.xreplace({symbol: sympy.I for symbol in found.free_symbols if symbol.name == "i"})
    return found


def same(left: Any, right: Any) -> bool:
    if isinstance(left, And) and isinstance(right, And):
        pairs = list(zip(left._unsorted_args, right._unsorted_args, strict=False))
        return len(left._unsorted_args) == len(right._unsorted_args) and all(same(one, two) for one, two in pairs)
    if isinstance(left, Relational) and isinstance(right, Relational):
        return same_relation(left, right)
    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and all(same(*pair) for pair in zip(left.flat(), right.flat(), strict=True))
    if isinstance(left, sympy.Set) and isinstance(right, sympy.Set):
        return bool(left == right) or left.symmetric_difference(right).is_empty is True
    if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
        return False
    if differ(left, right):
        return False
    # Expanding shows most equalities in a fraction of the time.
    return sympy.expand(left - right) == 0 or bool(verify(left, right, timeout_seconds=None))


def same_relation(left: Relational, right: Relational) -> bool:
    """Whether two relations are equivalent: lhs − rhs of both are proportional, with the same direction."""
    if isinstance(left, (sympy.StrictGreaterThan, sympy.GreaterThan)):
        left = left.reversed
    if isinstance(right, (sympy.StrictGreaterThan, sympy.GreaterThan)):
        right = right.reversed
    if type(left) is not type(right):
        return False
    sides = [side.lhs - side.rhs for side in (left, right) if isinstance(side.lhs - side.rhs, sympy.Expr)]
    if len(sides) < 2 or any(side.is_zero for side in sides):
        return False
    ratio = sympy.simplify(sides[0] / sides[1])
    if not ratio.is_number or ratio.is_zero is not False or not ratio.is_finite:
        return False
    return isinstance(left, (sympy.Eq, sympy.Ne)) or bool(ratio.is_positive)


def differ(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Whether the two have different values when numbers are substituted for the symbols.

    math-verify rounds decimals to six places and small values to 0, so it finds 3e-8 equal to 5e-8 and 1/3 to 0.333333.
    Here 60 digits are computed and 40 compared, relative to the value; fractions are exact.
    """
    if left.is_Rational and right.is_Rational:
        return bool(left != right)
    names = sorted({symbol.name for side in (left, right) for symbol in side.free_symbols})
    for shift in (0, 1):
        values = {name: sympy.Rational(2 * i + 3, 7) + shift for i, name in enumerate(names)}
        one, two = (value_at(side, values) for side in (left, right))
        if one is None or two is None:
            return one is not two
        if abs(one - two) > RELATIVE_ERROR * max(abs(one), abs(two)):
            return True
    return False


def value_at(side: sympy.Expr, values: dict[str, sympy.Rational]) -> Any:
    """The expression's number, complex in general, at these values; None if it is not finite."""
    at = side.subs({symbol: values[symbol.name] for symbol in side.free_symbols})
    value = sympy.N(at, DIGITS)
    return value if value.is_number and value.is_finite else None


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    return {"equal": equal(question["expected"], question["answer"])}


def _prepared() -> Answer:
    if not equal("4", "2+2"):
        raise RuntimeError("math-verify does not find 2+2 to be 4")
    return _answer


if __name__ == "__main__":
    serve(_prepared)
