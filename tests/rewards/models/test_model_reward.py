import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from byte_tokenizer import byte_tokenizer
from sharpen.errors import CheckpointError, RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.models.scorer import Kind
from sharpen.rewards import Reward, resolve_reward
from sharpen.runs.checkpoint import save_checkpoint
from sharpen.runs.folder import RunFolder
from sharpen.types import Group
from tiny_models import ALPHABET, loaded_scorer, tiny_folder
from tiny_runs import tiny_recipe
from tokenizer_makes import sentencepiece_bpe

POLICY = character_tokenizer(ALPHABET, context=128)
TEXTS = ["1+2=3;3-1=2#2", "#4", "", "1;2;"]
KINDS: dict[Kind, Any] = {"sequence": AutoModelForSequenceClassification, "token": AutoModelForTokenClassification}
NAMES = {"sequence": "reward_model", "token": "process_reward_model"}


def save_scorer(folder: Path, kind: Kind, **settings: Any) -> Path:
    loaded_scorer(folder.with_name(f"base_{folder.name}"), kind, **settings).save(folder)
    return folder


def reward_of(path: Path, kind: Kind, **settings: Any) -> Reward:
    spec = {"name": NAMES[kind], "path": str(path), **settings}
    reward = resolve_reward(spec | ({"separator": ";"} if kind == "token" else {}))
    reward.use_tokenizer(POLICY)
    return reward


def logits(folder: Path, kind: Kind, ids: tuple[int, ...]) -> torch.Tensor:
    """What plain transformers says of one sequence: a score, or a logit for each token."""
    model = KINDS[kind].from_pretrained(folder).eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found if kind == "sequence" else found[:, 0]


def whole(group: Group, index: int) -> tuple[int, ...]:
    return (*group.prompt.token_ids, *group.trajectories[index].token_ids)


@pytest.fixture
def groups(written: Any) -> list[Group]:
    return [written(POLICY, TEXTS, unended=[3]), written(POLICY, ["1-1=0#0"], prompt="12-11=")]


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
def test_the_score_of_a_completion_is_the_models_logit_at_its_end(
    tmp_path: Path, groups: list[Group], batch_tokens: int
) -> None:
    folder = save_scorer(tmp_path / "rm", "sequence")
    scores = reward_of(folder, "sequence", batch_tokens=batch_tokens).score(groups)
    assert [len(of_group) for of_group in scores] == [4, 1]
    seen = set()
    for group, of_group in zip(groups, scores, strict=True):
        for index, score in enumerate(of_group):
            (expected,) = logits(folder, "sequence", whole(group, index)).tolist()
            assert score.total == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert score.parts == {"reward_model": score.total}
            assert (score.steps, score.error) == ((), None)
            seen.add(round(expected, 3))
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("total", "combined"),
    [(None, min), ("min", min), ("product", math.prod), ("last", lambda v: v[-1]), ("mean", lambda v: sum(v) / len(v))],
)
def test_each_step_has_the_probability_at_its_end(
    tmp_path: Path, groups: list[Group], total: str | None, combined: Any
) -> None:
    folder = save_scorer(tmp_path / "prm", "token")
    places = [[[5, 13], [2], [0], [1, 3]], [[7]]]
    scores = reward_of(folder, "token", **({} if total is None else {"total": total})).score(groups)
    for group, of_group, of_places in zip(groups, scores, places, strict=True):
        for index, (score, positions) in enumerate(zip(of_group, of_places, strict=True)):
            own = logits(folder, "token", whole(group, index))[len(group.prompt.token_ids) :]
            values = [1 / (1 + math.exp(-own[position].item())) for position in positions]
            assert [step.position for step in score.steps] == positions
            assert [step.value for step in score.steps] == pytest.approx(values, rel=1e-4)
            assert score.total == pytest.approx(combined(values), rel=1e-4)


def test_another_vocabulary_is_scored_by_the_text(tmp_path: Path, written: Any) -> None:
    """The policy's ids mean other characters to the scorer, and its tokens hold more of them."""
    policy = byte_tokenizer(";3")
    group = written(policy, ["1+2=3;3-1=2#2", "1;2"], unended=[1], prompt="1+1=")
    eos = POLICY.eos_token_id
    own_ids = [(*POLICY("1+1=")["input_ids"], *POLICY(t)["input_ids"], *end) for t, end in (
        ("1+2=3;3-1=2#2", (eos,)), ("1;2", ()),
    )]  # fmt: skip
    whole_folder, step_folder = save_scorer(tmp_path / "rm", "sequence"), save_scorer(tmp_path / "prm", "token")
    reward = reward_of(whole_folder, "sequence")
    reward.use_tokenizer(policy)
    (scores,) = reward.score([group])
    for score, ids in zip(scores, own_ids, strict=True):
        assert score.total == pytest.approx(logits(whole_folder, "sequence", ids).item(), rel=1e-4, abs=1e-5)

    reward = reward_of(step_folder, "token")
    reward.use_tokenizer(policy)
    (scores,) = reward.score([group])
    # Read at the scorer's tokens, told in the policy's: its sixth token is ";3".
    for score, ids, read, told in zip(scores, own_ids, ([9, 17], [5, 6]), ([5, 12], [1, 2]), strict=True):
        values = logits(step_folder, "token", ids)[read].sigmoid().tolist()
        assert [step.position for step in score.steps] == told
        assert [step.value for step in score.steps] == pytest.approx(values, rel=1e-4)


def test_a_scorer_of_sentencepiece_reads_the_completion_right_after_the_prompt(tmp_path: Path, written: Any) -> None:
    tokenizer = sentencepiece_bpe(legacy=True)
    reads = {
        "1+2=3;3-1=2": ["<s>", "▁", *"1+1=", *"1+2=3;3-1=2", "</s>"],
        " 1;2": ["<s>", "▁", *"1+1=", "▁", *"1;2", "</s>"],
    }
    ids = [tuple(tokenizer.convert_tokens_to_ids(tokens)) for tokens in reads.values()]
    group = written(byte_tokenizer(), list(reads), prompt="1+1=")
    for kind, name in (("sequence", "rm"), ("token", "prm")):
        folder = save_scorer(tmp_path / name, kind, vocab_size=len(tokenizer))
        tokenizer.save_pretrained(folder)
        reward = reward_of(folder, kind)
        reward.use_tokenizer(byte_tokenizer())
        (scores,) = reward.score([group])
        for score, own, places in zip(scores, ids, ([11, 17], [8, 10]), strict=True):
            found = logits(folder, kind, own)
            if kind == "sequence":
                assert score.total == pytest.approx(found.item(), rel=1e-4, abs=1e-5)
            else:
                values = found[places].sigmoid().tolist()
                assert [step.value for step in score.steps] == pytest.approx(values, rel=1e-4)


def test_what_does_not_fit_fails_alone(tmp_path: Path, written: Any) -> None:
    folder = save_scorer(tmp_path / "rm", "sequence")
    reward = reward_of(folder, "sequence")
    group = written(POLICY, ["1" * 123, "1" * 124, "2"])
    (scores,) = reward.score([group])
    assert [score.error is None for score in scores] == [True, False, True]
    assert scores[1].total is None
    assert "with its prompt longer than the scorer's context of 128 tokens" in str(scores[1].error)
    assert scores[2].total == pytest.approx(logits(folder, "sequence", whole(group, 2)).item(), rel=1e-4, abs=1e-5)


def test_a_run_stands_for_its_latest_sound_checkpoint(tmp_path: Path, groups: list[Group]) -> None:
    run = RunFolder(tmp_path / "run")
    run.initialise(tiny_recipe(run.path, tmp_path / "unused", "sft").to_yaml())
    with pytest.raises(CheckpointError, match="has no sound checkpoint yet"):
        reward_of(run.path, "sequence")
    scorers = [loaded_scorer(tmp_path / f"base_{seed}", "sequence", seed=seed) for seed in range(3)]
    saved = [
        save_checkpoint(run.checkpoints, step, {"": scorer}, {}, {"step": step}) for step, scorer in enumerate(scorers)
    ]
    (saved[2] / "model.safetensors").write_bytes(b"damaged")
    ((score, *_), _) = reward_of(run.path, "sequence").score(groups)
    assert score.total == pytest.approx(logits(saved[1], "sequence", whole(groups[0], 0)).item(), rel=1e-4, abs=1e-5)


def test_bfloat16_is_near(tmp_path: Path, groups: list[Group]) -> None:
    folder = save_scorer(tmp_path / "rm", "sequence")
    exact, rounded = (reward_of(folder, "sequence", dtype=dtype).score(groups) for dtype in ("float32", "bfloat16"))
    totals = [[score.total for scores in side for score in scores] for side in (exact, rounded)]
    assert totals[0] != totals[1]
    assert totals[0] == pytest.approx(totals[1], rel=0.05, abs=0.1)


def test_a_model_that_was_not_trained_to_score_is_refused(tmp_path: Path) -> None:
    reward = resolve_reward({"name": "reward_model", "path": str(tiny_folder(tmp_path / "policy"))})
    for _ in range(2):
        with pytest.raises(RewardError, match=r"the head of .*policy is 0, so it is not a trained scorer"):
            reward.use_tokenizer(POLICY)


def test_a_score_that_is_not_finite_is_named(tmp_path: Path, groups: list[Group]) -> None:
    reward: Any = reward_of(save_scorer(tmp_path / "rm", "sequence"), "sequence")
    reward.scorer.head.weight.data.fill_(math.nan)
    with pytest.raises(RewardError, match=r"'reward_model': the scores \[nan\] of prompt '1\+1=', completion 0"):
        reward.score(groups)


def test_no_gradient_and_no_score_before_the_tokenizer(tmp_path: Path, groups: list[Group]) -> None:
    folder = save_scorer(tmp_path / "prm", "token")
    reward = resolve_reward({"name": "process_reward_model", "path": str(folder), "separator": ";"})
    with pytest.raises(RewardError, match="needs the policy's tokenizer"):
        reward.score(groups)
    reward.use_tokenizer(POLICY)
    reward.score(groups)
    assert all(p.grad is None for p in reward.scorer.model.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "reward_model"}, "reward 'reward_model': `path`: Field required"),
        ({"name": "reward_model", "path": "x", "pat": 1}, "unknown setting `pat`. Did you mean `path`"),
        ({"name": "reward_model", "path": "x", "batch_tokens": 0}, "`batch_tokens`: Input should be greater than 0"),
        ({"name": "process_reward_model", "path": "x"}, "reward 'process_reward_model': `separator`: Field required"),
        ({"name": "process_reward_model", "path": "x", "separator": ";", "total": "sum"}, "`total`: Input should be"),
    ],
)  # fmt: skip
def test_bad_settings(spec: Any, message: str) -> None:
    with pytest.raises(RewardError) as caught:
        resolve_reward(spec)
    assert message in str(caught.value)
