"""Planning micro-batches: which sequences go together, and that no token limit is exceeded."""

import itertools

import pytest
import torch

from sharpen.batch import Batch
from sharpen.models.packing.microbatches import (
    MICROBATCH_OPERATIONS,
    MICROBATCH_TOKENS,
    Cost,
    balanced,
    plan_microbatches,
)
from sharpen.models.packing.pack import PackedRow
from tiny_models import make_batch, ragged_batch

FREE_ATTENTION = Cost(per_token=1.0, per_pair=0.0)


def made(prompts: list[int], completions: list[list[int]]) -> Batch:
    """A batch of groups with these prompt and completion lengths."""
    lengths = torch.tensor([length for group in completions for length in group])
    mask_ET = torch.arange(int(lengths.max())) < lengths[:, None]
    return make_batch(
        prefixes=tuple(torch.full((p,), 3) for p in prompts),
        group_E=torch.cat([torch.full((len(group),), g) for g, group in enumerate(completions)]),
        tokens_ET=torch.zeros(mask_ET.shape, dtype=torch.long),
        mask_ET=mask_ET,
    )


def divided(batch: Batch, tokens: int, cost: Cost = FREE_ATTENTION, **settings: object) -> list[list[PackedRow]]:
    settings = {"shared": True, "padded": False, **settings}
    plan = plan_microbatches(batch, tokens_per_microbatch=tokens, cost=cost, **settings)
    return [list(rows) for rows in plan]


def test_the_work_of_a_group_by_hand() -> None:
    """A prompt of 3 and completions of 2 and 1. Tokens: 6. Pairs: 1+2+3 of the prompt, 4+5 and 4 of the completions."""
    assert Cost(per_token=1.0, per_pair=0.0).of(3, [2, 1]) == 6
    assert Cost(per_token=0.0, per_pair=1.0).of(3, [2, 1]) == 19
    assert Cost(per_token=10.0, per_pair=1.0).of(3, []) == 36


def test_parts_by_hand() -> None:
    # The largest first, each to the part with least: 5 | 4, then 3 to the 4, 3 to the 5, 2 to the 7.
    assert balanced([3, 5, 2, 4, 3], [1] * 5, 3) == [[1, 4], [0, 2, 3]]
    # Nine tokens fit into two parts of five, but 3 + 3 + 3 do not; one item may be too large by itself.
    assert balanced([3, 3, 3], [3, 3, 3], 5) == [[0], [1], [2]]
    assert balanced([9, 1, 1], [9, 1, 1], 5) == [[0], [1, 2]]
    assert balanced([1, 1], [9, 9], 5) == [[0], [1]]
    # Where attention dominates, the part with the one long sequence gets fewer tokens.
    assert balanced([10, 4, 4, 2], [4, 3, 3, 2], 9) == [[0], [1, 2, 3]]
    assert balanced([], [], 5) == []


def test_groups_that_fit_stay_whole() -> None:
    batch = made([3, 1, 2], [[2, 2], [4], [1, 1]])
    assert divided(batch, 16) == [[PackedRow(0, (0, 1), 7), PackedRow(1, (2,), 5), PackedRow(2, (3, 4), 4)]]
    # Seven tokens against nine: the largest first, then each to the emptier.
    assert divided(batch, 15) == [[PackedRow(0, (0, 1), 7)], [PackedRow(1, (2,), 5), PackedRow(2, (3, 4), 4)]]
    # Twice the budget of 8 are 16 tokens, but 5 + 4 do not fit.
    assert divided(batch, 8) == [[PackedRow(0, (0, 1), 7)], [PackedRow(1, (2,), 5)], [PackedRow(2, (3, 4), 4)]]


def test_a_group_that_does_not_fit_is_split_evenly() -> None:
    """A prompt of 3 and six completions of 2: 15 tokens. With 9 tokens three fit with the prompt, with 8 two."""
    batch = made([3], [[2] * 6])
    assert divided(batch, 9) == [[PackedRow(0, (0, 2, 4), 9)], [PackedRow(0, (1, 3, 5), 9)]]
    assert divided(batch, 8) == [[PackedRow(0, (0, 3), 7)], [PackedRow(0, (1, 4), 7)], [PackedRow(0, (2, 5), 7)]]
    assert divided(batch, 8, atom="group") == [[PackedRow(0, (0, 1, 2, 3, 4, 5), 15)]]
    # Long and short ones together.
    assert divided(made([1], [[6, 1, 5, 2]]), 8) == [[PackedRow(0, (0, 1), 8)], [PackedRow(0, (2, 3), 8)]]


def test_without_sharing_each_completion_has_its_prompt() -> None:
    batch = made([3, 1], [[2, 2], [4]])
    assert divided(batch, 15, shared=False) == [[PackedRow(0, (0,), 5), PackedRow(0, (1,), 5), PackedRow(1, (2,), 5)]]
    assert divided(batch, 10, shared=False) == [[PackedRow(0, (0,), 5), PackedRow(1, (2,), 5)], [PackedRow(0, (1,), 5)]]
    assert divided(batch, 10, shared=False, atom="group") == [
        [PackedRow(0, (0,), 5), PackedRow(0, (1,), 5)],
        [PackedRow(1, (2,), 5)],
    ]


def test_equal_tokens_are_not_equal_work_where_attention_counts() -> None:
    """Two sequences of 4 tokens, 10 pairs each, and eight of 1 token and pair: 16 tokens."""
    batch = made([1] * 10, [[3], [3], *([[0 + 1]] * 8)])
    batch = batch.select(torch.arange(10))
    tokens = divided(batch, 14, Cost(per_token=1.0, per_pair=0.0))
    pairs = divided(batch, 14, Cost(per_token=0.0, per_pair=1.0))
    for parts, size in ((tokens, lambda row: row.tokens), (pairs, lambda row: row.tokens * (row.tokens + 1) // 2)):
        sums = [sum(size(row) for row in rows) for rows in parts]
        assert len(sums) == 2
        assert sums[0] == sums[1]


@pytest.mark.parametrize("seed", range(10))
def test_balanced_parts_are_within_the_bound_of_largest_first(seed: int) -> None:
    """Within Graham's bound, 7/6 of the best of all divisions of eight items into two."""
    generator = torch.Generator().manual_seed(seed)
    work = torch.randint(1, 100, (8,), generator=generator).tolist()
    best = min(max(sum(part), sum(work) - sum(part)) for n in range(9) for part in itertools.combinations(work, n))
    found = balanced(work, [1] * 8, 7)
    assert len(found) == 2
    assert max(sum(work[i] for i in part) for part in found) <= 7 / 6 * best


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tokens", [1, 12, 20, 35, 60, 10_000])
def test_every_trained_sequence_is_planned_once_within_the_token_limit(tokens: int, padded: bool, shared: bool) -> None:
    if shared and padded:
        return
    for seed in range(20):
        batch = ragged_batch(20, seed=seed, sizes=(3, 1, 12, 2))
        microbatches = divided(batch, tokens, shared=shared, padded=padded)
        placed = [b for rows in microbatches for row in rows for b in row.samples]
        trained = [b for b in range(len(batch)) if batch.mask_ET[b].any()]
        assert sorted(placed) == trained
        for rows in microbatches:
            for row in rows:
                lengths = [int(batch.mask_ET[b].nonzero().max()) + 1 for b in row.samples]
                assert row.tokens == len(batch.prefixes[row.prefix]) + sum(lengths)
                assert all(batch.group_E[b] == row.prefix for b in row.samples)
                assert shared or len(row.samples) == 1
            size = len(rows) * max(row.tokens for row in rows) if padded else sum(row.tokens for row in rows)
            assert size <= tokens or (len(rows) == 1 and len(rows[0].samples) == 1)


def test_memory_does_not_grow_with_the_group() -> None:
    """A prompt of 3 and nine completions of 2 fill 21 tokens; 500 need ⌈500 / 9⌉ = 56 micro-batches."""
    microbatches = divided(made([3], [[2] * 500]), 21)
    assert len(microbatches) == 56
    assert all(len(rows) == 1 and rows[0].tokens <= 21 for rows in microbatches)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tokens", [1, 12, 20, 35, 60, 10_000])
def test_the_atom_group_is_never_split(tokens: int, padded: bool) -> None:
    cut = 0
    for seed in range(20):
        batch = ragged_batch(20, seed=seed, sizes=(3, 1, 12, 2))
        microbatches = divided(batch, tokens, shared=not padded, padded=padded, atom="group")
        placed = [b for rows in microbatches for row in rows for b in row.samples]
        assert sorted(placed) == [b for b in range(len(batch)) if batch.mask_ET[b].any()]
        groups = [{row.prefix for row in rows} for rows in microbatches]
        assert sum(len(g) for g in groups) == len(set().union(*groups)) <= 4
        for rows, present in zip(microbatches, groups, strict=True):
            size = len(rows) * max(row.tokens for row in rows) if padded else sum(row.tokens for row in rows)
            assert len(present) == 1 or size <= tokens
        pieces = divided(batch, tokens, shared=not padded, padded=padded)
        cut += sum(len({row.prefix for row in rows}) for rows in pieces) > 4
    # Otherwise the small budgets do cut groups, so the test could fail.
    assert (cut > 0) is (tokens <= 60)


def test_padded_groups_share_a_micro_batch_up_to_the_token_limit() -> None:
    """Rows of 4 and 5 tokens of group 0, of 3 of group 1: the two groups take 3 rows of 5."""
    batch = made([3, 1], [[1, 2], [2]])
    first, second = [PackedRow(1, (2,), 3)], [PackedRow(0, (0,), 4), PackedRow(0, (1,), 5)]
    limits = {"shared": False, "padded": True, "atom": "group"}
    assert divided(batch, 15, **limits) == [first + second]
    assert divided(batch, 14, **limits) == [first, second]
    assert divided(batch, 9, **limits) == [first, second]


@pytest.mark.parametrize("seed", range(6))
def test_padded_rows_are_divided_at_the_lowest_cost(seed: int) -> None:
    """All 2⁸ divisions of nine padded rows of ascending length, by their FLOPs."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 60, (9,), generator=generator).tolist()
    batch = made([3] * 9, [[length] for length in lengths])
    cost = Cost(per_token=4e7, per_pair=1e5)
    rows = sorted(3 + length for length in lengths)

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
    planned = divided(batch, 200, cost, shared=False, padded=True)
    assert 1 < len(planned) < 9
    assert operations([[row.tokens for row in part] for part in planned]) == pytest.approx(least, rel=1e-12)
