from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sharpen.types import Completion, Finish, Group, Prompt, Segment

GroupMaker = Callable[..., Group]


def make_group(texts: Sequence[str], id: str = "p0", **row: Any) -> Group:
    completions = tuple(
        Completion((1,), text, (True,), (Segment(0, 1, "model"),), Finish.EOS, draw_id=i)
        for i, text in enumerate(texts)
    )
    return Group(Prompt(id, (1,), str(row.get("prompt", "")), row), completions)


@pytest.fixture
def group() -> GroupMaker:
    return make_group
