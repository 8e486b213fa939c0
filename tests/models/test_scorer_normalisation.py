"""Normalisation shifts a reward model's scores to a mean of 0 on demonstrations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sharpen.batch import Batch
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.modules import ScorerModule
from sharpen.models.packing.microbatches import Planner
from sharpen.models.scorer import Scorer, normalise_scores
from tiny_models import EOS, loaded_scorer, make_batch, prefix_of_each, ragged_batch

LIMITS = MicrobatchLimits(60, shared_prompt=True)


def last_scores(scorer: Scorer, batch: Batch) -> Tensor:
    """The score at the last trained token of each sequence that has one."""
    (rows,) = Planner().plan(
        batch, tokens_per_microbatch=100_000, shared=scorer.plain, cost=scorer.cost, padded=not scorer.plain
    )
    with torch.no_grad():
        scores_ET = scorer.outputs(batch, rows, 1.0, frozenset({"scores"}))["scores"]
    found = []
    for scores_T, mask_T in zip(scores_ET, batch.mask_ET, strict=True):
        if mask_T.any():
            found.append(scores_T[mask_T.nonzero()[-1, 0]].double())
    return torch.stack(found)


def ended(batch: Batch) -> Batch:
    """The last trained token of each sequence is the end-of-sequence token, as in demonstrations."""
    tokens_ET = batch.tokens_ET.clone()
    for b in range(len(batch)):
        if batch.mask_ET[b].any():
            tokens_ET[b, batch.mask_ET[b].nonzero()[-1, 0]] = EOS
    return replace(batch, tokens_ET=tokens_ET)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_demonstrations_score_0_on_average_afterwards(kind: str, architecture: str, tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "model", kind, architecture)
    demonstrations = ended(ragged_batch(20, sizes=(20, 1, 30, 9)))
    before = last_scores(scorer, demonstrations)
    assert before.mean().abs() > 0.05
    mean = normalise_scores(scorer, demonstrations, LIMITS)
    assert mean == pytest.approx(before.mean().item(), abs=1e-5)
    after = last_scores(scorer, demonstrations)
    assert after.mean().abs() < 2e-6
    if scorer.head.bias is not None:
        torch.testing.assert_close(after, before - mean, rtol=0, atol=5e-6)
    assert normalise_scores(scorer, demonstrations, LIMITS) == pytest.approx(0.0, abs=2e-6)


def last_states(scorer: Scorer, batch: Batch) -> Tensor:
    """The last hidden states by the model's own forward, one sequence at a time."""
    rows = []
    for b, prefix in enumerate(prefix_of_each(batch)):
        if batch.mask_ET[b].any():
            ids = torch.cat([prefix, batch.tokens_ET[b, : batch.mask_ET[b].nonzero()[-1, 0] + 1]])
            with torch.no_grad():
                rows.append(scorer.model.base_model(input_ids=ids[None]).last_hidden_state[0, -1].double())
    return torch.stack(rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_a_bias_the_shift_changes_score_differences_least(seed: int, tmp_path: Path) -> None:
    scorer = loaded_scorer(tmp_path / "model", "sequence", seed=seed)
    demonstrations, others = (ended(ragged_batch(20, seed=s, sizes=(100, 50, 150, 100))) for s in (0, 1))
    states_EH, new_EH = last_states(scorer, demonstrations), last_states(scorer, others)
    mean_H = states_EH.mean(dim=0)
    before = scorer.head.weight[0].detach().double()
    mean = normalise_scores(scorer, demonstrations, LIMITS)
    delta = scorer.head.weight[0].detach().double() - before
    torch.testing.assert_close(delta @ mean_H, torch.tensor(-mean).double(), rtol=1e-5, atol=0)

    def change(shift: Tensor, states: Tensor) -> float:
        return (states @ shift).std().item()

    generator = torch.Generator().manual_seed(4)
    for size in (0.001, 0.01, 0.1, 1.0):
        for _ in range(200):
            aside = torch.randn(len(mean_H), generator=generator, dtype=torch.float64)
            aside -= (aside @ mean_H) / (mean_H @ mean_H) * mean_H
            # The ridge costs a little on the states that it is fitted to.
            assert change(delta + size * delta.norm() * aside / aside.norm(), states_EH) > 0.995 * change(
                delta, states_EH
            )
    along = -mean * mean_H / (mean_H @ mean_H)
    assert change(delta, states_EH) < 0.75 * change(along, states_EH)
    assert change(delta, new_EH) < change(along, new_EH)
    assert change(delta, new_EH) < 0.6 * abs(mean)


def stub(states: Tensor, weight: list[float]) -> tuple[Scorer, Batch]:
    """A scorer whose hidden state at each token is a row of a table, and one sequence of one token for each row."""

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.cat([torch.zeros(1, states.shape[1]), states]))

        def forward(self, input_ids: Tensor, **_: object) -> object:
            return type("Output", (), {"last_hidden_state": self.weight[input_ids]})

    class Whole(torch.nn.Module):
        base_model_prefix = "table"

        def __init__(self) -> None:
            super().__init__()
            self.table = Table()
            self.score = torch.nn.Linear(states.shape[1], 1, bias=False)
            self.score.weight.data = torch.tensor([weight])
            shape = {"hidden_size": 4, "num_attention_heads": 1, "num_hidden_layers": 1, "model_type": "stub"}
            self.config = type("Config", (), {**shape, "get_text_config": lambda self: self})()

        @property
        def base_model(self) -> Table:
            return self.table

        def get_input_embeddings(self) -> Table:
            return self.table

        def get_output_embeddings(self) -> None:
            return None

    n = len(states)
    batch = make_batch(
        prefixes=(torch.tensor([0]),),
        group_E=torch.zeros(n, dtype=torch.long),
        tokens_ET=torch.arange(1, n + 1)[:, None],
        mask_ET=torch.ones(n, 1, dtype=torch.bool),
    )
    scorer = Scorer(
        root=ScorerModule(Whole(), "float32"),
        tokenizer=None,
        pad_id=0,
        context_length=9,
        source="stub",
        kind="sequence",
    )
    return scorer, batch


def test_the_shift_by_hand() -> None:
    """States (1, 1), (1, −1), (1, 3), (1, 1): mean (1, 1), variances 0 and 2, so the ridge is 0.01.

    Σ⁻¹h̄ = (1/0.01, 1/2.01) and h̄ᵀΣ⁻¹h̄ = 100.4975, so δ = −m (0.99505, 0.00495). With w = (1, 2), m = 3.
    """
    scorer, batch = stub(torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 3.0], [1.0, 1.0]]), [1.0, 2.0])
    assert normalise_scores(scorer, batch, LIMITS) == pytest.approx(3.0)
    share = (1 / 2.01) / (100 + 1 / 2.01)
    assert scorer.head.weight[0].tolist() == pytest.approx([1 - 3 * (1 - share), 2 - 3 * share], rel=1e-5)


def test_a_single_demonstration_is_shifted_along_its_own_state() -> None:
    """State (3, 4), w = (2, 1): m = 10, δ = −10 (3, 4) / 25."""
    scorer, batch = stub(torch.tensor([[3.0, 4.0]]), [2.0, 1.0])
    assert normalise_scores(scorer, batch, LIMITS) == pytest.approx(10.0)
    assert scorer.head.weight[0].tolist() == pytest.approx([2 - 1.2, 1 - 1.6], rel=1e-5)


def test_only_the_last_trained_token_counts_and_a_batch_without_one_is_refused(tmp_path: Path) -> None:
    scorer, batch = stub(torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [8.0, 0.0]]), [1.0, 0.0])
    batch = make_batch(
        prefixes=batch.prefixes,
        group_E=torch.zeros(2, dtype=torch.long),
        tokens_ET=torch.tensor([[1, 2, 3], [2, 4, 4]]),
        mask_ET=torch.tensor([[True, True, False], [True, False, True]]),
    )
    # The second token of the first sequence and the third of the second: (2 + 8) / 2.
    assert normalise_scores(scorer, batch, LIMITS) == pytest.approx(5.0)
    nothing = replace(batch, mask_ET=torch.zeros_like(batch.mask_ET))
    with pytest.raises(ValueError, match="the batch has no trained token"):
        normalise_scores(scorer, nothing, LIMITS)
