"""The Chinese README says the same as the English one: the same commands, numbers, links and tables."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))

CODE = re.compile(r"^```.*?^```$|^(?: {4}[^\n]*\n?)+", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?<=\S) +# .*$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)]+)\)")
SPAN = re.compile(r"`[^`\n]+`")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def sections(page: str) -> list[str]:
    """The text before the first heading of the second level, and that of each of them and of the third."""
    return re.split(r"^##+ ", page, flags=re.MULTILINE)


def commands(page: str) -> list[str]:
    """The code of a page without its comments, which are translated."""
    return [COMMENT.sub("", block.group()).rstrip() for block in CODE.finditer(page)]


def prose(section: str) -> str:
    return CODE.sub("", section)


def links(section: str) -> list[str]:
    return sorted(link for link in LINK.findall(section) if not link.startswith("README"))


def numbers(section: str) -> list[str]:
    """All numbers outside code blocks and links, sorted: a translation may change their order."""
    return sorted(NUMBER.findall(LINK.sub("]", prose(section))))


def first_cells(section: str) -> list[list[str]]:
    """The spans of code in each row of a section's tables."""
    return [SPAN.findall(line) for line in section.splitlines() if line.startswith("|")]


PAIRS = list(zip(sections(ENGLISH), sections(CHINESE), strict=False))


def test_it_has_the_same_sections() -> None:
    assert len(sections(ENGLISH)) == len(sections(CHINESE)) > 8


def test_it_has_the_same_commands_and_code() -> None:
    assert commands(CHINESE) == commands(ENGLISH)
    assert len(commands(ENGLISH)) > 5


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[pair[0].split("\n")[0] for pair in PAIRS])
def test_a_section_has_the_same_numbers_links_names_and_rows(english: str, chinese: str) -> None:
    assert numbers(chinese) == numbers(english)
    assert links(chinese) == links(english)
    assert sorted(SPAN.findall(prose(chinese))) == sorted(SPAN.findall(prose(english)))
    assert first_cells(chinese) == first_cells(english)


@pytest.mark.parametrize(
    ("change", "told_by"),
    [
        (("92.7 %", "97.2 %"), numbers),
        (("docs/install.md", "docs/run.md"), links),
        (("sharpen chat MODEL", "sharpen chat"), commands),
        (("`gspo`", "`grpo`"), first_cells),
    ],
)
def test_a_difference_is_noticed(change: tuple[str, str], told_by: object) -> None:
    assert callable(told_by)
    assert change[0] in CHINESE
    assert told_by(CHINESE.replace(*change)) != told_by(CHINESE)
