"""A run on the tokens and log-probabilities of an engine from outside the package."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from plain_forward import plain_gradient, plain_logprobs, plain_model, record_gradients, relative_error
from sharpen.errors import RecipeError, StaleError
from sharpen.launch.run import start
from sharpen.models.character_model import character_tokenizer
from sharpen.runs.folder import read_metrics
from tiny_runs import ALPHABET, digits, given, tiny_recipe, tiny_start_model

ENGINE = Path(__file__).with_name("own_engine.py")
TEXTS = ["12", "+", "3+4", "=", "99", "77", "1", "++"]
"""The answers of step 1 and of step 2: two prompts with two completions each."""
SAID = -1.5
"""The log-probability that the engine gives every token."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("own_engine") / "model")


def recipe(folder: Path, model: Path, **changes: Any) -> Any:
    shutil.copy(ENGINE, folder / "own_engine.py")
    tokenizer = character_tokenizer(ALPHABET, context=32)
    answers = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in TEXTS]
    (folder / "answers.json").write_text(json.dumps([[ids, [SAID] * len(ids)] for ids in answers]))
    method = {"group_size": 2, "updates_per_rollout": 1, "minibatches": 1, "beta": 0.0, **changes.pop("method", {})}
    return tiny_recipe(
        folder / "run",
        model,
        "grpo",
        method=method,
        reward="<given in Python>",
        rollout={
            "engine": {
                "name": f"{folder / 'own_engine.py'}:ReplayEngine",
                "settings": {"answers": str(folder / "answers.json")},
            }
        },
        training={"steps": 2, "prompts_per_step": 2},
        evaluation={"every": 0},
        checkpoint={"every": 0, "best": None},
        **changes,
    )


def samples(run: Path, step: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "samples" / f"step_{step:06d}.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("cap", [None, 2.0])
def test_grpo_trains_on_the_tokens_that_it_replays(
    cap: float | None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards are the share of digits, of 8: in step 1 (2, 0) and (2, 0) of 8, so that Â = ±1/√2.

    The weight of a token is min(π_old / e^SAID, cap); the mismatch is |log π_old − SAID|.
    """
    found = record_gradients(monkeypatch)
    asked = recipe(tmp_path, model, method={"tis_cap": cap})
    start(given(asked, {"reward": digits}))
    rows = [*samples(asked.run, 1), *samples(asked.run, 2)]
    assert [row["completion"] for row in rows] == TEXTS
    assert [row["policy_version"] for row in rows] == [0] * 4 + [1] * 4
    assert [row["reward"] for row in rows] == [0.25, 0, 0.25, 0, 0.25, 0.25, 0.125, 0]

    plain = plain_model(model)
    tokenizer = character_tokenizer(ALPHABET, context=32)
    loss, apart, noise = torch.zeros(()), [], []
    for row, sign in zip(samples(asked.run, 1), (1, -1, 1, -1), strict=True):
        ids = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
        logprobs = plain_logprobs(plain, tokenizer(row["prompt"])["input_ids"], ids)
        difference = logprobs.detach() - SAID
        weights = torch.ones(len(ids)) if cap is None else difference.exp().clamp(max=cap)
        loss = loss - (weights * sign / 2**0.5 * logprobs).sum() / (2 * 2 * len(ids))
        apart += difference.abs().tolist()
        noise.append(abs(difference.mean().item()))
    expected = plain_gradient(plain, loss)
    assert relative_error(found[0], expected) < 1e-5
    first = read_metrics(asked.run)[0]
    assert first["grad_norm"] == pytest.approx(expected.norm().item(), rel=1e-5)
    assert first["mismatch/mean"] == pytest.approx(sum(apart) / len(apart), rel=1e-5)
    assert first["mismatch/max"] == pytest.approx(max(apart), rel=1e-5)
    assert first["ratio/noise"] == pytest.approx(sum(noise) / 4, rel=1e-5)


def test_an_engine_that_keeps_an_older_version_is_noticed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores the snapshot of version 1, so that the batch of step 2 is from version 0."""
    asked = recipe(tmp_path, model)
    source = (tmp_path / "own_engine.py").read_text()
    (tmp_path / "own_engine.py").write_text(source.replace("self.version = snapshot.version", "return"))
    with pytest.raises(StaleError, match="version 0 of the policy drew tokens that version 1 would be trained on"):
        start(given(asked, {"reward": digits}))
    assert [row["step"] for row in read_metrics(asked.run)] == [1]


def test_an_engine_that_keeps_an_older_version_can_be_corrected_for(model: Path, tmp_path: Path) -> None:
    asked = recipe(tmp_path, model, method={"tis_cap": 2.0})
    source = (tmp_path / "own_engine.py").read_text()
    (tmp_path / "own_engine.py").write_text(source.replace("self.version = snapshot.version", "return"))
    assert start(given(asked, {"reward": digits})).finished
    first, second = read_metrics(asked.run)
    assert "staleness/mean" not in first
    assert (second["staleness/mean"], second["staleness/max"]) == (1, 1)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"settings": {"url": "x"}}, "settings` has no effect: only with an engine of your own"),
        ({"name": "m:E", "kv_gib": 1.0}, "kv_gib` has no effect: only with the engine local"),
        (
            {"name": "m:E", "max_sequences": 4, "settings": {"url": "x"}},
            "max_sequences` has no effect: only with the engine local",
        ),
    ],
)
def test_a_setting_that_the_engine_would_not_read_is_refused(engine: dict[str, Any], said: str, model: Path) -> None:
    with pytest.raises(RecipeError, match=f"rollout.engine.*{said}"):
        tiny_recipe(Path("run"), model, "grpo", reward="<given in Python>", rollout={"engine": engine})
