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
