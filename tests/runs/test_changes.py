"""The record of changes, whatever is in the names and values that it holds."""

from pathlib import Path

import pytest

from sharpen.errors import CheckpointError
from sharpen.runs.changes import Changes

ODD = {"what": "a\u2028b\x85c", "entries": {"recipe/reward.tag": ["\ud800", "\u2028"]}}


def test_separators_and_half_characters_come_back(tmp_path: Path) -> None:
    changes = Changes(tmp_path)
    changes.write(3, [ODD])
    changes.write(5, [{"what": "b", "entries": {}}])
    assert Changes(tmp_path)._lines() == [
        {"step": 3, "changed": [ODD]},
        {"step": 5, "changed": [{"what": "b", "entries": {}}]},
    ]


@pytest.mark.parametrize(
    "line",
    [b"\xff", b'{"step": "3", "changed": []}', b'{"step": 3, "changed": [{"entries": 3}]}', b"[]", b"{", b"null"],
)
def test_a_line_that_no_run_writes_is_named(line: bytes, tmp_path: Path) -> None:
    changes = Changes(tmp_path)
    changes.path.write_bytes(b'{"step": 1, "changed": []}\n' + line + b"\n")
    with pytest.raises(CheckpointError, match=r"changes\.jsonl:2: cannot be read"):
        Changes(tmp_path)._lines()
