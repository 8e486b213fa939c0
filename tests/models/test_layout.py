"""Law 2: a prompt is computed once for its completions, and nothing but the work changes."""

import pytest
import torch

from sharpen.models.layout import MICROBATCH_OPERATIONS, MICROBATCH_TOKENS, Cost, Row, build, plan
from sharpen.models.policy import PLAIN_ARCHITECTURES
from sharpen.types import Batch
from tiny_models import assert_same_gradients, gradients, own_logprobs, ragged_batch, tiny_policy, weighted

LOGPROBS = frozenset({"logprobs"})
FREE_ATTENTION = Cost(per_token=1.0, per_pair=0.0)
TEMPERATURE = 0.8


def by_hand() -> Batch:
    """Two completions of a prompt of three tokens, [7, 8] and [9] with its end not trained on; one of a prompt of 1."""
    return Batch(
        prompts=(torch.tensor([4, 5, 6]), torch.tensor([3])),
        group_B=torch.tensor([0, 1, 0]),
        tokens_BT=torch.tensor([[7, 8], [2, 1], [9, 5]]),
        mask_BT=torch.tensor([[True, True], [False, True], [True, False]]),
        rewards_B=torch.zeros(3),
        truncated_B=torch.zeros(3, dtype=torch.bool),
        completion_limit=2,
    )


def test_a_packed_row_worked_out_by_hand() -> None:
    rows = [Row(0, (2, 0), 6), Row(1, (1,), 3)]
    packed = build(by_hand(), rows, pad_id=0)
    assert packed.input_ids_RL.tolist() == [[4, 5, 6, 9, 7, 8], [3, 2, 1, 0, 0, 0]]
    assert packed.position_ids_RL[0].tolist() == [0, 1, 2, 3, 3, 4]
    assert packed.position_ids_RL[1, :3].tolist() == [0, 1, 2]
    assert packed.mask_R1LL is not None
    assert packed.mask_R1LL[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1, 1],
    ]
    assert packed.mask_R1LL[1, 0, :3].int().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    where = dict(zip(zip(packed.b_N.tolist(), packed.t_N.tolist(), strict=True), range(4), strict=True))
    # The first token of each completion is predicted from the prompt's last; row 1 begins at flat position 6.
    assert {key: packed.source_N[n].item() for key, n in where.items()} == {(2, 0): 2, (0, 0): 2, (0, 1): 4, (1, 1): 7}
    assert {key: packed.place_N[n].item() for key, n in where.items()} == {(2, 0): 3, (0, 0): 4, (0, 1): 5, (1, 1): 8}
    assert {key: packed.target_N[n].item() for key, n in where.items()} == {(2, 0): 9, (0, 0): 7, (0, 1): 8, (1, 1): 1}


def test_plain_rows_need_no_mask_and_count_positions_through_the_padding() -> None:
    packed = build(by_hand(), [Row(0, (0,), 5), Row(1, (1,), 3)], pad_id=0)
    assert packed.mask_R1LL is None
    assert packed.position_ids_RL.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_group_in_one_row_where_attention_is_free_and_in_many_where_it_is_dear() -> None:
    batch = by_hand()
    shared = plan(batch, tokens_per_microbatch=100, shared=True, cost=FREE_ATTENTION)
    assert shared == [[Row(1, (1,), 3), Row(0, (2, 0), 6)]]
    # One row: 6 tokens, 36 pairs. Two rows of 4 and 5: 9 tokens, 41 pairs. With the mean length, 2 · 4.5² = 40.5.
    dear = plan(batch, tokens_per_microbatch=100, shared=True, cost=Cost(per_token=0.0, per_pair=1.0))
    assert dear == shared
    longer = batch.select(torch.tensor([0, 0, 0, 0]))
    # A prompt of 3 and four completions of 2: 121 pairs in one row, 2 · 49 in two, 4 · 25 in four.
    rows = plan(longer, tokens_per_microbatch=100, shared=True, cost=Cost(per_token=0.0, per_pair=1.0))
    assert [[len(row.sequences) for row in rows] for rows in rows] == [[2, 2]]
    assert plan(batch, tokens_per_microbatch=100, shared=False, cost=FREE_ATTENTION) == [
        [Row(1, (1,), 3), Row(0, (2,), 4), Row(0, (0,), 5)]
    ]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tokens", [1, 12, 20, 35, 60, 10_000])
def test_every_trained_sequence_has_one_place_and_no_micro_batch_exceeds_its_tokens(tokens: int, shared: bool) -> None:
    for seed in range(20):
        batch = ragged_batch(20, seed=seed, sizes=(3, 1, 12, 2))
        microbatches = plan(batch, tokens_per_microbatch=tokens, shared=shared, cost=FREE_ATTENTION)
        placed = [b for rows in microbatches for row in rows for b in row.sequences]
        trained = [b for b in range(len(batch)) if batch.mask_BT[b].any()]
        assert sorted(placed) == trained
        for rows in microbatches:
            for row in rows:
                lengths = [int(batch.mask_BT[b].nonzero().max()) + 1 for b in row.sequences]
                assert row.tokens == len(batch.prompts[row.group]) + sum(lengths)
                assert all(batch.group_B[b] == row.group for b in row.sequences)
                assert row.tokens <= tokens or len(row.sequences) == 1
            assert len(rows) == 1 or len(rows) * max(row.tokens for row in rows) <= tokens


def test_a_group_larger_than_the_budget_is_split_so_that_memory_does_not_grow_with_it() -> None:
    batch = by_hand().select(torch.zeros(500, dtype=torch.long))
    microbatches = plan(batch, tokens_per_microbatch=21, shared=True, cost=FREE_ATTENTION)
    # A prompt of 3 and nine completions of 2 fill 21 tokens; 500 need ⌈500 / 9⌉ = 56 rows.
    assert len(microbatches) == 56
    assert all(len(rows) == 1 and rows[0].tokens <= 21 for rows in microbatches)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tokens", [1, 12, 20, 35, 60, 10_000])
def test_a_group_is_never_cut_where_it_is_the_atom(tokens: int, shared: bool) -> None:
    limits = {"tokens_per_microbatch": tokens, "shared": shared, "cost": FREE_ATTENTION}
    cut = 0
    for seed in range(20):
        batch = ragged_batch(20, seed=seed, sizes=(3, 1, 12, 2))
        microbatches = plan(batch, atom="group", **limits)
        placed = [b for rows in microbatches for row in rows for b in row.sequences]
        assert sorted(placed) == [b for b in range(len(batch)) if batch.mask_BT[b].any()]
        groups = [{row.group for row in rows} for rows in microbatches]
        assert sum(len(g) for g in groups) == len(set().union(*groups))
        for rows, present in zip(microbatches, groups, strict=True):
            assert len(present) == 1 or len(rows) * max(row.tokens for row in rows) <= tokens
        assert sum(map(len, groups)) <= 4
        cut += sum(len({row.group for row in rows}) for rows in plan(batch, **limits)) > 4
    # Otherwise the small budgets do cut groups, so the test could fail.
    assert (cut > 0) is (tokens <= 60)


def test_groups_share_a_micro_batch_up_to_its_tokens() -> None:
    """Plain rows of 4 and 5 tokens of group 0, of 3 of group 1: the two groups take 3 rows of 5."""
    batch = by_hand()
    first, second = [Row(1, (1,), 3)], [Row(0, (2,), 4), Row(0, (0,), 5)]
    limits = {"shared": False, "cost": FREE_ATTENTION, "atom": "group"}
    assert plan(batch, tokens_per_microbatch=15, **limits) == [first + second]
    assert plan(batch, tokens_per_microbatch=14, **limits) == [first, second]
    assert plan(batch, tokens_per_microbatch=9, **limits) == [first, second]


@pytest.mark.parametrize("seed", range(6))
def test_no_other_division_into_neighbours_pads_and_divides_for_less(seed: int) -> None:
    """All 2⁸ divisions of nine plain rows of ascending length, by the operations that each would take."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 60, (9,), generator=generator)
    mask_BT = torch.arange(60) < lengths[:, None]
    batch = Batch(
        prompts=(torch.tensor([4, 5, 6]),) * 9,
        group_B=torch.arange(9),
        tokens_BT=torch.zeros(mask_BT.shape, dtype=torch.long),
        mask_BT=mask_BT,
        rewards_B=torch.zeros(9),
        truncated_B=torch.zeros(9, dtype=torch.bool),
        completion_limit=60,
    )
    cost = Cost(per_token=4e7, per_pair=1e5)
    rows = sorted(3 + length for length in lengths.tolist())

    def operations(parts: list[list[int]]) -> float:
        once = MICROBATCH_OPERATIONS + MICROBATCH_TOKENS * 4e7
        return sum(once + len(part) * (max(part) * 4e7 + max(part) ** 2 * 1e5) for part in parts)

    least = float("inf")
    for cuts in range(2**8):
        parts, part = [], [rows[0]]
        for i, row in enumerate(rows[1:]):
            if cuts >> i & 1:
                parts.append(part)
                part = []
            part.append(row)
        parts.append(part)
        if all(len(part) == 1 or len(part) * max(part) <= 200 for part in parts):
            least = min(least, operations(parts))
    planned = plan(batch, tokens_per_microbatch=200, shared=False, cost=cost)
    assert 1 < len(planned) < 9
    assert operations([[row.tokens for row in part] for part in planned]) == pytest.approx(least, rel=1e-12)


PLAIN = [(architecture, tied) for architecture in sorted(PLAIN_ARCHITECTURES) for tied in (False, True)]


@pytest.mark.parametrize(("architecture", "tied"), PLAIN)
def test_packed_rows_equal_the_models_own_forward(architecture: str, tied: bool) -> None:
    policy = tiny_policy(architecture, dtype=torch.float64, tie_word_embeddings=tied)
    assert policy.plain
    same = policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight
    assert same is tied
    batch = ragged_batch(policy.config.vocab_size)
    weights_BT = weighted(batch)

    own_BT = torch.stack(own_logprobs(policy.model, batch, TEMPERATURE))
    (weights_BT * own_BT).sum().backward()
    expected = gradients(policy.model)

    for shared in (True, False):
        policy.model.zero_grad()
        found_BT = torch.zeros_like(own_BT)
        limits = {"tokens_per_microbatch": 40, "shared": shared}
        microbatches = plan(batch, cost=FREE_ATTENTION if shared else policy.cost, **limits)
        assert len(microbatches) > 1
        if shared:
            assert any(len(row.sequences) > 2 for rows in microbatches for row in rows)
            assert any(len(rows) > 1 and rows[0].tokens < rows[-1].tokens for rows in microbatches)
        for rows in microbatches:
            logprobs_BT = policy.outputs(batch, rows, TEMPERATURE, LOGPROBS).logprobs_BT
            (weights_BT * logprobs_BT).sum().backward()
            found_BT += logprobs_BT.detach()
        # The norms of these models compute in float32 even here.
        torch.testing.assert_close(found_BT, own_BT.detach() * batch.mask_BT, rtol=0, atol=2e-6)
        assert_same_gradients(gradients(policy.model), expected, 2e-6)


UNLISTED = {
    "mistral with a window": ("mistral", {"sliding_window": 4}),
    "qwen2 with a window": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "gemma3": ("gemma3_text", {"sliding_window": 4}),
    "gpt2": ("gpt2", {}),
    "opt": ("opt", {}),
    # Grouped products of experts have no float64.
    "mixtral": ("mixtral", {"experts_implementation": "eager"}),
    "qwen2_moe": ("qwen2_moe", {"experts_implementation": "eager"}),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_all_other_architectures_are_computed_in_the_plain_layout_by_their_own_forward(name: str) -> None:
    architecture, settings = UNLISTED[name]
    policy = tiny_policy(architecture, dtype=torch.float64, **settings)
    assert not policy.plain
    batch = ragged_batch(policy.config.vocab_size)
    weights_BT = weighted(batch)
    own_BT = torch.stack(own_logprobs(policy.model, batch, TEMPERATURE))
    (weights_BT * own_BT).sum().backward()
    expected = gradients(policy.model)
    policy.model.zero_grad()
    found_BT = torch.zeros_like(own_BT)
    for rows in plan(batch, tokens_per_microbatch=60, shared=policy.plain, cost=policy.cost):
        assert all(len(row.sequences) == 1 for row in rows)
        logprobs_BT = policy.outputs(batch, rows, TEMPERATURE, LOGPROBS).logprobs_BT
        (weights_BT * logprobs_BT).sum().backward()
        found_BT += logprobs_BT.detach()
    torch.testing.assert_close(found_BT, own_BT.detach() * batch.mask_BT, rtol=0, atol=2e-6)
    assert_same_gradients(gradients(policy.model), expected, 2e-6)


def test_a_packed_row_would_be_wrong_with_a_window() -> None:
    """Why the list exists: the 4-D mask takes the place of the window, without a word from transformers."""
    policy = tiny_policy("mistral", dtype=torch.float64, sliding_window=4)
    batch = ragged_batch(policy.config.vocab_size)
    own_BT = torch.stack(own_logprobs(policy.model, batch, 1.0)).detach() * batch.mask_BT
    policy.model.config.sliding_window = None
    assert policy.plain
    found_BT = torch.zeros_like(own_BT)
    for rows in plan(batch, tokens_per_microbatch=100, shared=True, cost=FREE_ATTENTION):
        found_BT += policy.outputs(batch, rows, 1.0, LOGPROBS).logprobs_BT.detach()
    assert (found_BT - own_BT).abs().max() > 0.1


def test_qwen_with_its_window_switched_off_is_plain() -> None:
    assert tiny_policy("qwen2", use_sliding_window=False, sliding_window=4).plain
