import re

import pytest

from hostile_texts import random_texts
from sharpen.rewards.code import extraction as code_extraction
from sharpen.rewards.code.extraction import CodeSource, as_completion, extract_code


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("First\n```python\nx = 1\n```\nbetter\n```python\nx = 2\n```\nDone.", "x = 2"),
        ("```py\nx = 1\n```", "x = 1"),
        ("```Python3 title=a\nx = 1\n```", "x = 1"),
        ("~~~python\nx = 1\n~~~", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("```python\nx = 1\n```\nIt prints\n```\n1\n```", "x = 1"),
        ("```bash\nls\n```", None),
        ("```python\nx = 1\n```\n```bash\nls\n```", "x = 1"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),
        ("```python\nx = 1\n`````", "x = 1"),
        ("```python\nx = 1\n~~~\n```", "x = 1\n~~~"),
        ("- so:\n  ```python\n  if x:\n      y\n  ```", "if x:\n    y"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r"),
        ("```python\n    return 1\n```", "    return 1"),
        ("```python\nx = 1\n```\n```python\nx = 2\n", None),
        ("```python\nx = 1", None),
        ("```python\nx = 1```", None),
        ("```python x = 1```", None),
        ("```python\n \n```", None),
        ("x = 1", None),
        ("", None),
        ("```python\nx = '\ud800'\n```", None),
    ],
)
def test_the_last_block_of_python(completion: str, code: str | None) -> None:
    assert extract_code(completion) == code


def test_an_opening_line_is_what_the_same_pattern_finds_that_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = ["```", "`", "~~~", "~", " ", "\t", "python", "py", "a", "\r", "\n", "\n```\n", "\n```python\n"]
    texts = list(random_texts(pieces, count=10_000))
    found = [extract_code(text) for text in texts]
    assert sum(code is not None for code in found) > 500
    monkeypatch.setattr(code_extraction, "_OPENING", re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^`\r\n]*)"))
    assert found == [extract_code(text) for text in texts]


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("<think>a</think><answer>\nx = 1\n</answer>", "\nx = 1\n"),
        ("```python\nx = 0\n```<answer>\n```python\nx = 1\n```\n</answer>", "x = 1"),
        ("<answer>\n```python\nx = 1\n</answer>", None),
        ("<answer>x = 1</answer><answer>x = 2</answer>", None),
        ("<answer> </answer>", None),
        ("x = 1", None),
    ],
)
def test_in_tags(completion: str, code: str | None) -> None:
    assert extract_code(completion, "tags") == code


def test_the_whole_completion() -> None:
    assert extract_code("    return 1\n", "whole") == "    return 1\n"
    assert extract_code(" \n", "whole") is None


@pytest.mark.parametrize("source", ["fence", "tags", "whole"])
@pytest.mark.parametrize("code", ["x = 1", "    return 1", 's = """\n```\n````\n"""'])
def test_code_as_a_completion_is_found_again(source: CodeSource, code: str) -> None:
    found = extract_code(as_completion(code, source, "code"), source, "code")
    assert found is not None
    assert found.strip("\n") == code
