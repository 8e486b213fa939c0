from pathlib import Path
from typing import Any

import pytest

from sharpen.data.collate import collate
from sharpen.functional.advantages import group_advantages
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import resolve_reward
from sharpen.rewards.models.score_cache import ScoreCache, content_key
from tiny_models import ALPHABET, loaded_scorer

POLICY = character_tokenizer(ALPHABET, context=128)
TEXTS = ["1+2=3;3-1=2#2", "#4", "1;2;"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loaded_scorer(tmp_path / "base", "sequence").save(tmp_path / "rm")
    return tmp_path / "rm"


def reward_of(folder: Path, **settings: Any) -> Any:
    reward: Any = resolve_reward({"name": "reward_model", "path": str(folder), **settings})
    reward.use_tokenizer(POLICY)
    computed: list[int] = []
    compute = reward._computed
    reward._computed = lambda reads: computed.append(sum(map(len, reads))) or compute(reads)
    reward.computed = computed
    return reward


def totals(reward: Any, *groups: Any) -> list[float | None]:
    return [score.total for scores in reward.score(groups) for score in scores]


def test_the_same_completion_is_computed_once_in_a_call(folder: Path, written: Any) -> None:
    reward = reward_of(folder)
    group, other = written(POLICY, ["#4", *TEXTS, "#4"]), written(POLICY, ["#4"], prompt="12-11=")
    first = totals(reward, group, other, group)
    assert reward.computed == [4]
    assert (reward.cache.hits, reward.cache.misses, len(reward.cache)) == (7, 4, 0)
    assert first[0] == first[2] == first[4]
    assert first[:5] == first[6:]
    assert first[5] != first[0]
    # Without a size nothing is remembered from one call to the next.
    totals(reward, group)
    assert reward.computed == [4, 3]


@pytest.mark.parametrize("batch_tokens", [1, 20, 8192])
def test_the_same_completions_leave_no_advantage_whatever_else_is_scored(
    folder: Path, written: Any, batch_tokens: int
) -> None:
    """One bit of float32 would make advantages of about ±1 of it."""
    reward = reward_of(folder, batch_tokens=batch_tokens)
    groups = [written(POLICY, [text] * 3, prompt=prompt) for prompt in ("1+1=", "12-11=") for text in TEXTS]
    mixed = written(POLICY, [TEXTS[0], TEXTS[1], TEXTS[0]])
    scored = [g.scored(s) for g, s in zip([*groups, mixed], reward.score([*groups, mixed]), strict=True)]
    batch = collate(scored)
    found = group_advantages(batch.rewards_E, batch.group_E).view(-1, 3).tolist()
    assert found[:-1] == [[0.0] * 3] * 6
    assert found[-1][0] == found[-1][2] == pytest.approx(-found[-1][1] / 2)


def test_what_is_remembered_is_not_computed_again_and_equal_bit_for_bit(folder: Path, written: Any) -> None:
    reward = reward_of(folder, cache_size=100)
    group = written(POLICY, TEXTS)
    first = totals(reward, group)
    assert totals(reward, group) == first
    # In other company, too.
    assert totals(reward, written(POLICY, ["1", TEXTS[2], "2", TEXTS[0]]))[1::2] == [first[2], first[0]]
    assert reward.computed == [3, 0, 2]
    assert (reward.cache.hits, reward.cache.misses, len(reward.cache)) == (5, 5, 5)
    assert first == pytest.approx(totals(reward_of(folder), group), rel=1e-5)


def test_another_prompt_or_another_end_is_another_content(folder: Path, written: Any) -> None:
    reward = reward_of(folder, cache_size=100)
    same_text = [
        written(POLICY, ["#4"]),
        written(POLICY, ["#4"], unended=[0]),
        written(POLICY, ["#4"], prompt="2+2="),
    ]
    assert len({totals(reward, group)[0] for group in same_text}) == 3
    assert reward.computed == [1, 1, 1]


def test_it_keeps_the_last_ones_asked_for() -> None:
    cache = ScoreCache(2)
    keys = [content_key([i], [0]) for i in range(3)]
    cache.put(keys[0], (0.0,))
    cache.put(keys[1], (1.0,))
    assert cache.get(keys[0]) == (0.0,)
    cache.put(keys[2], (2.0,))
    assert [cache.get(key) for key in keys] == [(0.0,), None, (2.0,)]
    assert len(cache) == 2


def test_keys_tell_tokens_from_positions() -> None:
    contents = [((1, 2), (1,)), ((1,), (2, 1)), ((1, 2, 1), ()), ((1, 2), (0,)), ((2, 1), (1,)), ((), ())]
    assert len({content_key(*content) for content in contents}) == len(contents)
