from collections.abc import Callable, Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from sharpen.types import Finish, Group, Prompt, Trajectory

GroupMaker = Callable[..., Group]


def make_group(texts: Sequence[str], id: str = "p0", **row: Any) -> Group:
    completions = tuple(Trajectory((1,), text, (True,), Finish.EOS, draw_id=i) for i, text in enumerate(texts))
    return Group(Prompt(id, (1,), str(row.get("prompt", "")), row), completions)


def write_group(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, unended: Sequence[int] = (), **row: Any
) -> Group:
    """Completions in a tokenizer's own tokens, ended by its end of the sequence but for those of ``unended``."""
    completions = []
    for i, text in enumerate(texts):
        ids = (*tokenizer(text)["input_ids"], *(() if i in unended else (tokenizer.eos_token_id,)))
        finish = Finish.LENGTH if i in unended else Finish.EOS
        completions.append(Trajectory(ids, text, (True,) * len(ids), finish, draw_id=i))
    prompt = str(row.get("prompt", "1+1="))
    return Group(Prompt(prompt, tuple(tokenizer(prompt)["input_ids"]), prompt, row), tuple(completions))


@pytest.fixture
def written() -> GroupMaker:
    return write_group


@pytest.fixture
def group() -> GroupMaker:
    return make_group
