"""Planning micro-batches: which sequences go together, and that no token limit is exceeded."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from growth import growth
from oracles import microbatches as slow
from sharpen.batch import Batch
from sharpen.models.forward import MicrobatchLimits, microbatches
from sharpen.models.packing.microbatches import (
    MICROBATCH_OPERATIONS,
    MICROBATCH_TOKENS,
    MOST_PLANS,
    Cost,
    Planner,
)
from sharpen.models.packing.pack import PackedRow
from sharpen.models.packing.plan import Plan
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
    return [list(rows) for rows in Planner().plan(batch, tokens_per_microbatch=tokens, cost=cost, **settings)]


def test_the_work_of_a_group_by_hand() -> None:
    """A prompt of 3 and completions of 2 and 1. Tokens: 6. Pairs: 1+2+3 of the prompt, 4+5 and 4 of the completions."""
    assert Cost(per_token=1.0, per_pair=0.0).of(3, [2, 1]) == 6
    assert Cost(per_token=0.0, per_pair=1.0).of(3, [2, 1]) == 19
    assert Cost(per_token=10.0, per_pair=1.0).of(3, []) == 36


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


def test_a_prompt_longer_than_the_limit_leaves_no_room_for_two() -> None:
    """The longer completion first, as it is the most work."""
    batch = made([10], [[2, 3]])
    assert divided(batch, 8) == [[PackedRow(0, (1,), 13)], [PackedRow(0, (0,), 12)]]
    assert divided(batch, 8, atom="group") == [[PackedRow(0, (0, 1), 15)]]


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


def drawn(draw: random.Random) -> Batch:
    """Interleaved groups, some lengths alike; some sequences have untrained tokens at the end or only those."""
    longest = draw.choice([2, 9, 40])
    sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 8))]
    batch = made(
        [draw.randint(1, 30) for _ in sizes], [[draw.randint(1, longest) for _ in range(size)] for size in sizes]
    )
    mask_ET = batch.mask_ET.clone()
    for b in draw.sample(range(len(batch)), len(batch) // 4):
        mask_ET[b, draw.randint(0, longest) :] = False
    order_E = torch.tensor(draw.sample(range(len(batch)), len(batch)))
    return replace(batch, mask_ET=mask_ET).select(order_E)


@pytest.mark.parametrize("atom", ["token", "group"])
@pytest.mark.parametrize(("shared", "padded"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("cost", [FREE_ATTENTION, Cost(0.0, 1.0), Cost(7e7 / 3, 1e5 / 7)])
def test_plans_are_those_of_the_slow_reference(cost: Cost, shared: bool, padded: bool, atom: str) -> None:
    draw = random.Random(0)
    overhead = MICROBATCH_OPERATIONS + MICROBATCH_TOKENS * cost.per_token
    several = 0
    for _ in range(100):
        batch, limit = drawn(draw), draw.choice([1, 20, 50, 100, 300, 5000])
        found = divided(batch, limit, cost, shared=shared, padded=padded, atom=atom)
        expected = slow.plan(
            batch.mask_ET.tolist(),
            batch.group_E.tolist(),
            [len(prefix) for prefix in batch.prefixes],
            most_tokens=limit,
            shared=shared,
            padded=padded,
            by_group=atom == "group",
            cost=(cost.per_token, cost.per_pair),
            overhead=overhead,
        )
        assert [[(row.prefix, row.samples, row.tokens) for row in rows] for rows in found] == expected
        several += len(found) > 1
    assert several > 30


def test_a_plan_counts_tokens_and_work() -> None:
    """Groups of 7, 5 and 4 tokens of 1 + 2 + 3 + (4 + 5) + (4 + 5) = 24, 1 + … + 5 = 15 and 1 + 2 + 3 + 3 = 9 pairs.

    Padded, rows of 3, 3, 5, 5 and 5 tokens: two of 3, and three of 5 with 25 pairs each.
    """
    batch = made([3, 1, 2], [[2, 2], [4], [1, 1]])
    packed = Planner().plan(batch, tokens_per_microbatch=15, shared=True, padded=False, cost=Cost(100.0, 1.0))
    assert (packed.tokens, packed.work) == ((7, 9), (724.0, 924.0))
    padded = Planner().plan(batch, tokens_per_microbatch=15, shared=False, padded=True, cost=Cost(1e9, 1e8))
    assert (padded.tokens, padded.work) == ((6, 15), (2 * 3e9 + 2 * 9e8, 3 * 5e9 + 3 * 25e8))


def of_work(*work: float) -> Plan:
    """A micro-batch i of one row of group i for each."""
    rows = tuple((PackedRow(i, (i,), 10 + i),) for i in range(len(work)))
    return Plan(rows, tuple(10 + i for i in range(len(work))), work)


def test_micro_batches_dealt_to_ranks_by_hand() -> None:
    """3 | 5, 4 to the 3; 3 to the 5, and the 1 to the 7. The largest comes first, of equals the earlier one."""
    plan = of_work(3.0, 5.0, 1.0, 4.0, 3.0)
    first, second = plan.dealt(0, 2), plan.dealt(1, 2)
    assert [row.prefix for rows in first for row in rows] == [1, 4]
    assert [row.prefix for rows in second for row in rows] == [3, 0, 2]
    assert first == Plan(((PackedRow(1, (1,), 11),), (PackedRow(4, (4,), 14),), ()), (11, 14, 0), (5.0, 3.0, 0.0))
    assert (second.tokens, second.work) == ((13, 10, 12), (4.0, 3.0, 1.0))
    assert plan.dealt(0, 1) is plan


def test_ranks_without_a_micro_batch_get_an_empty_one() -> None:
    plan = of_work(1.0, 2.0)
    assert [plan.dealt(rank, 3).work for rank in range(3)] == [(2.0,), (1.0,), (0.0,)]
    assert plan.dealt(2, 3) == Plan(((),), (0,), (0.0,))
    assert of_work().dealt(1, 2) == Plan((), (), ())


@pytest.mark.parametrize(("rank", "ranks"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_must_be_one_of_the_ranks(rank: int, ranks: int) -> None:
    with pytest.raises(ValueError, match=f"no rank {rank} of {ranks}"):
        of_work(1.0).dealt(rank, ranks)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 100])
def test_every_micro_batch_is_dealt_once_and_every_rank_gets_equally_many(ranks: int) -> None:
    draw = random.Random(ranks)
    for _ in range(50):
        plan = of_work(*(draw.choice([1.0, 2.0, draw.uniform(1, 9)]) for _ in range(draw.randint(0, 30))))
        dealt = [plan.dealt(rank, ranks) for rank in range(ranks)]
        assert {len(share) for share in dealt} == {-(-len(plan) // ranks)}
        assert sorted(row.prefix for share in dealt for rows in share for row in rows) == list(range(len(plan)))
        for share in dealt:
            assert [bool(rows) for rows in share] == sorted((bool(rows) for rows in share), reverse=True)
            for rows, tokens, work in zip(share, share.tokens, share.work, strict=True):
                assert (tokens, work) == ((rows[0].tokens, plan.work[rows[0].prefix]) if rows else (0, 0.0))


def test_a_planner_plans_sequences_of_the_same_lengths_once() -> None:
    batch = made([3, 1, 2], [[2, 2], [4], [1, 1]])
    limits = {"tokens_per_microbatch": 15, "shared": True, "padded": False, "cost": FREE_ATTENTION}
    planner = Planner()
    plan = planner.plan(batch, **limits)
    assert plan == Planner().plan(batch, **limits)
    assert planner.plan(replace(batch, tokens_ET=batch.tokens_ET + 1, mask_ET=batch.mask_ET.clone()), **limits) is plan
    others: list[tuple[Batch, dict[str, object]]] = [
        (batch.select(torch.tensor([0, 1, 2, 3])), {}),
        (batch.select(torch.tensor([2, 1, 0, 3, 4])), {}),
        (made([3, 1, 2], [[2, 2], [4], [1, 2]]), {}),
        (made([3, 1, 2], [[2], [2, 4], [1, 1]]), {}),
        (made([3, 2, 2], [[2, 2], [4], [1, 1]]), {}),
        (batch, {"tokens_per_microbatch": 8}),
        (batch, {"shared": False}),
        (batch, {"shared": False, "padded": True}),
        (batch, {"cost": Cost(0.0, 1.0)}),
        (batch, {"atom": "group"}),
    ]
    for other, changed in others:
        found = planner.plan(other, **{**limits, **changed})
        assert found is not plan
        assert found == Planner().plan(other, **{**limits, **changed})
    # Planned by what the mask says now, not by which tensor it is.
    batch.mask_ET[2] = False
    assert [row.prefix for rows in planner.plan(batch, **limits) for row in rows] == [0, 2]
    batch.mask_ET[2, :4] = True
    assert planner.plan(batch, **limits) is plan


def test_passes_with_the_same_limits_share_plans() -> None:
    batch, model = (
        made([3, 1], [[2, 2], [4]]),
        SimpleNamespace(plain=True, cost=FREE_ATTENTION, root=SimpleNamespace(shares_prefixes=True)),
    )
    limits = MicrobatchLimits(15, shared_prompt=True)
    plan = microbatches(model, batch, limits)
    assert plan.microbatches == ((PackedRow(0, (0, 1), 7), PackedRow(1, (2,), 5)),)
    assert microbatches(model, batch, limits) is plan
    assert microbatches(model, batch, limits, "group") is not plan
    model.plain = model.root.shares_prefixes = False
    padded = microbatches(model, batch, limits)
    assert padded.microbatches == ((PackedRow(0, (0,), 5), PackedRow(0, (1,), 5), PackedRow(1, (2,), 5)),)


def test_a_planner_keeps_only_the_latest_plans() -> None:
    batch, planner = made([3, 1], [[2, 2], [4]]), Planner()

    def plan(limit: int) -> Plan:
        return planner.plan(batch, tokens_per_microbatch=limit, shared=True, padded=False, cost=FREE_ATTENTION)

    first = plan(100)
    assert plan(100) is first
    for limit in range(101, 101 + MOST_PLANS):
        plan(limit)
    assert plan(100) is not first
    assert plan(100) == first


def test_a_batch_without_a_trained_token_has_no_micro_batch() -> None:
    batch = made([3, 1], [[2, 2], [4]])
    model, limits = (
        SimpleNamespace(plain=True, cost=FREE_ATTENTION, root=SimpleNamespace(shares_prefixes=True)),
        MicrobatchLimits(15, shared_prompt=True),
    )
    for mask_ET in (torch.zeros_like(batch.mask_ET), torch.zeros(3, 0, dtype=torch.bool)):
        assert microbatches(model, replace(batch, mask_ET=mask_ET), limits) == Plan((), (), ())
    assert microbatches(model, batch.select(torch.tensor([], dtype=torch.long)), limits) == Plan((), (), ())


@pytest.mark.parametrize("shared", [True, False])
def test_planning_takes_little_more_time_than_in_proportion(shared: bool) -> None:
    """A step of ``size`` completions in groups of 8, of which each fills a micro-batch or is cut."""

    def step(size: int) -> Batch:
        draw = random.Random(0)
        groups = range(size // 8)
        return made([draw.randint(50, 400) for _ in groups], [[draw.randint(1, 900) for _ in range(8)] for _ in groups])

    limits = {"tokens_per_microbatch": 4096, "shared": shared, "padded": False, "cost": Cost(1e8, 1e5)}
    assert any(growth(step, lambda batch: Planner().plan(batch, **limits), 4096) <= 8 for _ in range(3))
