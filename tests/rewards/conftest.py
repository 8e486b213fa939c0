from collections.abc import Callable, Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from sharpen.types import Finish, Group, Prompt, single_turn

GroupMaker = Callable[..., Group]


def make_group(texts: Sequence[str], id: str = "p0", **row: Any) -> Group:
    completions = tuple(single_turn((1,), (1,), text, draw_id=i) for i, text in enumerate(texts))
    return Group(Prompt(id, (1,), str(row.get("prompt", "")), row), completions)


def write_group(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, unended: Sequence[int] = (), **row: Any
) -> Group:
    """Completions in a tokenizer's own tokens, ended by its end of the sequence but for those of ``unended``."""
    prompt = str(row.get("prompt", "1+1="))
    prompt_ids = tuple(tokenizer(prompt)["input_ids"])
    completions = []
    for i, text in enumerate(texts):
        ids = (*tokenizer(text)["input_ids"], *(() if i in unended else (tokenizer.eos_token_id,)))
        finish = Finish.LENGTH if i in unended else Finish.EOS
        completions.append(single_turn(prompt_ids, ids, text, finish=finish, draw_id=i))
    return Group(Prompt(prompt, prompt_ids, prompt, row), tuple(completions))


@pytest.fixture
def written() -> GroupMaker:
    return write_group


@pytest.fixture
def group() -> GroupMaker:
    return make_group
