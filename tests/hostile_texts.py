"""Texts that repeat what makes patterns go back, as long as asked for."""

import random
from collections.abc import Callable, Iterator, Sequence


def repeated(unit: str, before: str = "", after: str = "") -> Callable[[int], str]:
    """``unit`` again and again, between the other two; of as many characters as are asked for, these two besides."""
    return lambda size: before + (unit * (size // len(unit) + 1))[:size] + after


HOSTILE_TEXTS: dict[str, Callable[[int], str]] = {
    "blanks": repeated(" "),
    "blanks between": repeated(" ", "1", "x"),
    "blanks after a letter": repeated(" ", "A", "x"),
    "blanks after a fence": repeated(" ", "```", "`"),
    "blanks in a block": repeated(" ", "```\n", "x"),
    "tabs": repeated("\t"),
    "newlines": repeated("\n"),
    "digits": repeated("7"),
    "digits and a letter": repeated("7", "", "x"),
    "thousands": repeated("123,"),
    "decimals": repeated("1.2"),
    "fractions": repeated("1/"),
    "sums": repeated("1+"),
    "steps": repeated("1+1=2;"),
    "letters": repeated("a"),
    "statements": repeated("a;"),
    "sentences": repeated("a. "),
    "ideographic stops": repeated("。"),
    "combining marks": repeated("\u0301", "a"),
    "zero-width spaces": repeated("\u200b"),
    "minus signs": repeated("-"),
    "long minus signs": repeated("\u2212"),
    "full stops": repeated("."),
    "single quotes": repeated("'"),
    "backslashes": repeated("\\"),
    "dollars": repeated("$"),
    "dollars, two and a letter": repeated("$$a"),
    "dollars, one and two": repeated("$a$$ "),
    "backticks": repeated("`"),
    "tildes and a backtick": repeated("~", "", "`"),
    "fences marked json": repeated("```json\n"),
    "fences marked python": repeated("```python\n"),
    "fences that are none": repeated("```" + 1000 * " " + "x\n"),
    "square brackets": repeated("["),
    "square brackets that close": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "curly brackets": repeated("{"),
    "round brackets": repeated("("),
    "nested JSON": repeated('{"a":['),
    "formulas": repeated(r"\[ a "),
    "formulas in a line": repeated(r"\( a "),
    "one environment": repeated(r"\begin{a}"),
    "many environments": lambda size: "".join(rf"\begin{{a{i}}}" for i in range(size // 12)),
    "boxes": repeated(r"\boxed{"),
    "markers": repeated("#### "),
    "number signs": repeated("#"),
    "opening tags": repeated("<answer>"),
    "short tags": repeated("<a>"),
    "a long tag": repeated("a", "<"),
    "closing tags": repeated("</"),
    "addresses": repeated("http://"),
}


def random_texts(pieces: Sequence[str], *, count: int = 3000, most_pieces: int = 30, seed: int = 0) -> Iterator[str]:
    """Texts put together at random, for what must read them as something slower does."""
    chosen = random.Random(seed)
    for _ in range(count):
        yield "".join(chosen.choices(pieces, k=chosen.randint(1, most_pieces)))


def _nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + closing * depth


HOSTILE_CHARACTERS = {
    "nothing": "",
    "NUL": "\0",
    "a lone surrogate": "\ud800",
    "surrogates the wrong way round": "\udc00\ud800",
    "every control character": "".join(map(chr, range(32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "an escape sequence": "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "both directions": "\u202e\u2066abc\u2069\u202c",
    "a noncharacter": "\uffff\ufffe\U0010ffff",
    "digits of other scripts": "٣४๕𝟘Ⅷ²½",
    "a byte order mark": "\ufeff1",
    "line separators": "1\u2028\u2029\x85\x0b\x0c2",
}

HOSTILE_NUMBERS = {
    "infinity": "Infinity",
    "minus infinity": "-inf",
    "not a number": "NaN",
    "beyond every float": "1e400",
    "beyond every float, negative": "-1e400",
    "below every float": "1e-400",
    "an exponent of ten digits": "1e9999999999",
    "more digits than Python reads": "9" * 5000,
    "a fraction of as many": "1/" + "9" * 5000,
    "decimals of as many": "0." + "3" * 5000,
    "a fraction by 0": "1/0",
    "digits with underscores": "1_000",
    "minus 0": "-0",
    "a signalling NaN": "sNaN",
}

HOSTILE_JSON = {
    "lists": _nested("[", "]", 90),
    "lists, deeper": _nested("[", "]", 327),
    "lists, deeper still": _nested("[", "]", 900),
    "lists, deepest": _nested("[", "]", 100_000),
    "objects": _nested('{"a":', "}", 90).replace(":}", ":1}"),
    "objects, deeper": _nested('{"a":', "}", 900).replace(":}", ":1}"),
    "lists without an end": "[" * 100_000,
    "a large number": "1e400",
    "large numbers in a list": "[1e400, -1e400, 1e308, 5e-324]",
    "an integer of many digits": "9" * 4000,
    "an integer of too many digits": "9" * 5000,
    "NaN": "[NaN, Infinity]",
    "a key twice": '{"a": 1, "a": 2}',
    "objects that are alike": "[" + ", ".join(f'{{"a": {i}}}' for i in range(5000)) + "]",
    "lists of one hash": "[" + ", ".join(str(i * (2**61 - 1)) for i in range(3000)) + "]",
    "many keys": "{" + ", ".join(f'"{i}": {i}' for i in range(20_000)) + "}",
    "a long text": '"' + "a" * 1_000_000 + '"',
    "escaped surrogates": r'["\ud800", "\udc00\ud800", "\u0000"]',
    "a surrogate as a key": r'{"\ud800": 1}',
    "true and 1": "[true, 1, 1.0, false, 0]",
}

HOSTILE_SCHEMAS = {
    "any": True,
    "a multiple of a decimal": {"multipleOf": 0.01, "items": {"multipleOf": 0.01}},
    "a multiple of a large number": {"multipleOf": 1e300, "items": {"multipleOf": 1e-300}},
    "an integer": {"type": ["integer", "array"], "items": {"type": "integer"}},
    "limits": {"minimum": -1e308, "exclusiveMaximum": 1e308, "items": {"minimum": 0, "maximum": 10**400}},
    "distinct items": {"uniqueItems": True},
    "a constant": {"anyOf": [{"const": {"a": [1, {"b": None}]}}, {"enum": [1, "a", [True], {"a": 0.5}]}, True]},
    "a tree": {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
    "a tree of many calls a level": {
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {"anyOf": [{"allOf": [{"oneOf": [{"$ref": "#/$defs/b"}]}]}, False]},
            "b": {"if": True, "then": {"items": {"$ref": "#/$defs/a"}, "additionalProperties": {"$ref": "#/$defs/a"}}},
        },
    },
    "what is left": {"unevaluatedItems": False, "unevaluatedProperties": False, "contains": {"type": "null"}},
    "names": {"propertyNames": {"pattern": "^.{1,3}$"}, "patternProperties": {"^(a|a)*$": {"type": "number"}}},
    "lengths": {"maxLength": 10, "minItems": 2, "maxProperties": 5, "dependentRequired": {"a": ["b"]}},
    "formats": {"format": "date", "items": {"format": "regex"}},
}

HOSTILE_MATHS = {
    "a tower of powers": "9^9^9^9",
    "a tower of powers in brackets": "9^{9^{9^9}}",
    "a tower from below": "{{{9^9}^9}^9}^9",
    "a root of a tower": r"\sqrt{9^{9^9}}",
    "the sine of a tower": r"\sin(10^{10^{10}})",
    "a tower modulo": r"9^{9^{9^9}} \pmod{7}",
    "a factorial": "100000!",
    "a factorial of a power": "(10^9)!",
    "factorials of factorials": "9!!!",
    "a binomial": r"\binom{10^9}{10^8}",
    "a binomial of the other kind": "C_{99999999}^{49999999}",
    "a power of x": "x^{10^9}-1",
    "a power of a sum": "(x+y+z)^{500}",
    "a long sum": r"\sum_{i=1}^{10^{9}} \frac{1}{i^2+1}",
    "a long product": r"\prod_{i=1}^{10^9} (1+\frac{1}{i!})",
    "an integral": r"\int_0^1 x^{x^{x^x}} \sin(e^{x}) dx",
    "a limit": r"\lim_{x \to 0} \frac{\sin(x^{x^x})}{x^{100}}",
    "a large base": "ZZZZZZZZZZZZZZZZZZZZ_36",
    "a base that is none": "12_{99}",
    "a large decimal": "0." + "1" * 900,
    "an exponent": "1e9999",
    "times a power": r"1 \times 10^{9999}",
    "a large matrix": r"\begin{pmatrix}" + r"1&2\\" * 100 + r"1&2\end{pmatrix}",
    "a matrix that ends early": r"\begin{pmatrix}1&2\\",
    "an equation": "x^{50}+x^{49}=\\sqrt{x}",
    "an inequality": "x^{99} < 10^{10^{10}} < y",
    "a set of many": r"\{" + ",".join(f"x^{{{i}}}" for i in range(150)) + r"\}",
    "a list of towers": "9^9^9^9," * 50 + "1",
    "a list of sums": ",".join(f"{i}+{i}" for i in range(100)),
    "fractions in fractions": r"\frac{1}{" * 29 + "1" + "}" * 29,
    "brackets": _nested("(", ")", 29).replace("()", "(1)"),
    "boxes in boxes": r"\boxed{" * 300 + "5" + "}" * 300,
    "division by 0": r"\frac{1}{0}",
    "infinity": r"\infty - \infty",
    "a logarithm of 0": r"\log 0",
    "a recurring decimal": r"0.\overline{" + "123456789" * 50 + "}",
    "a mixed number by 0": r"1\frac{1}{0}",
    "percent": "%",
    "signs": "+-" * 400 + "1",
    "units": r"5 \text{" + "m" * 900 + "}",
    "an interval": r"(-\infty, 9^{9^{9^9}}]",
    "Chinese digits": "九" * 500 + "分之" + "九" * 400,
    "choices": "A, B, C, D, E" * 50,
}

HOSTILE_VALUES = {
    "lists": "v = []\n    for _ in range(90): v = [v]",
    "lists, deeper": "v = []\n    for _ in range(327): v = [v]",
    "lists that need a higher limit": (
        "import sys; sys.setrecursionlimit(10**6); v = []\n    for _ in range(900): v = [v]"
    ),
    "tuples": "v = ()\n    for _ in range(300): v = (v,)",
    "frozensets": "v = frozenset()\n    for _ in range(200): v = frozenset((v,))",
    "objects": "v = {}\n    for _ in range(300): v = {'a': v}",
    "itself": "v = []; v.append(v)",
    "NaN": "v = float('nan')",
    "infinity": "v = float('inf')",
    "a large integer": "v = 1 << 800000",
    "a signalling NaN": "from decimal import Decimal; v = Decimal('sNaN')",
    "a NaN with a payload": "from decimal import Decimal; v = Decimal('NaN123')",
    "a decimal": "from decimal import Decimal; v = Decimal('1e999999')",
    "a fraction": "from fractions import Fraction; v = Fraction(1 << 9000, 3)",
    "a complex number": "v = complex('nan+infj')",
    "a range": "v = range(10**18)",
    "an iterator without an end": "import itertools; v = itertools.count()",
    "a long iterator": "v = iter(range(99999))",
    "a lone surrogate": "v = chr(0xd800)",
    "NULs": "v = chr(0) * 1000",
    "escape sequences": "v = chr(27) + '[2J'",
    "a class": "v = type('list', (list,), {'__eq__': lambda *_: True, '__len__': lambda s: 1 / 0})()",
    "a text of its own class": "v = type('S', (str,), {'__str__': lambda s: 1})('a')",
    "an object": "v = object()",
    "a function": "v = f",
    "a generator that raises": "v = (1 / i for i in range(3, -1, -1))",
    "bytes": "v = bytes(range(256)) * 1000",
    "keys of one hash": "v = {i * (2**61 - 1): 1 for i in range(3000)}",
    "too much": "v = 'a' * (1 << 22)",
    "nothing": "v = None",
    "not implemented": "v = NotImplemented",
    "an exception": "raise RuntimeError(chr(0xd800) * 2000)",
    "an exception without a text": "raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})()",
    "the end": "raise SystemExit(chr(27))",
    "a group of exceptions": "raise ExceptionGroup('a', [ValueError(1)])",
    "a warning": "raise UserWarning",
    "an end of iteration": "raise StopIteration",
    "endless recursion": "v = f(*x)",
    "memory": "v = [0] * 10**10",
    "a crash": "import os; os.kill(os.getpid(), 11)",
}
"""Bodies of a function ``f(*x)`` that returns ``v``."""


def returning(body: str) -> str:
    return f"def f(*x):\n    {body}\n    return v\ndef g(*x):\n    return 2\n"
