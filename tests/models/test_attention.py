"""Attention over segments, by tiles and by FlexAttention, against plain loops."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from oracles import attention as slow
from sharpen.models.kernels.attention import NAME, attention_over_segments
from sharpen.models.kernels.flex import flex_over_segments, mask_of, visible
from sharpen.models.packing import attention_tiles as tiles
from sharpen.models.packing.attention_tiles import make_tiles
from sharpen.models.packing.segments import Segment, Segments
from tiny_models import tiny_policy

Attention = Callable[[Tensor, Tensor, Tensor, Segments, float], Tensor]

ROWS: dict[str, tuple[Segment, ...]] = {
    "one token": (Segment(0, 1),),
    "one sequence": (Segment(0, 11),),
    "a prompt of one token": (Segment(0, 1), Segment(1, 3, 0, 1), Segment(3, 8, 0, 1)),
    "groups of all sizes": (
        Segment(0, 5),
        Segment(5, 9, 0, 5),
        Segment(9, 10, 0, 5),
        Segment(10, 17, 0, 5),
        Segment(17, 24),
        Segment(24, 26),
        Segment(26, 33, 24, 26),
        Segment(33, 35, 24, 26),
    ),
}


def row(name: str) -> Segments:
    return Segments(ROWS[name], ROWS[name][-1].end)


def problem(length: int, heads: int, key_heads: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys, values and an upstream gradient."""
    generator = torch.Generator().manual_seed(length)
    shapes = ((heads, 4), (key_heads, 4), (key_heads, 4), (heads, 4))
    made = [torch.randn(1, h, length, d, generator=generator, dtype=torch.float64).to(dtype) for h, d in shapes]
    return [x.requires_grad_(i < 3) for i, x in enumerate(made)]


def values_and_gradients(attention: Attention, segments: Segments, tensors: list[Tensor], scale: float) -> list[Tensor]:
    *inputs, upstream = tensors
    found = attention(*inputs, segments, scale)
    return [found.detach(), *torch.autograd.grad((found * upstream).sum(), inputs)]


def by_flex(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    return flex_over_segments(query, key, value, mask_of(segments), scale)


def by_loops(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    return slow.attention(query[0], key[0], value[0], segments.segments, scale)[None]


# Few pairs to a tile, few queries to a block, no padding or any; and as it is.
CUTS = [(2**18, 256, 8000), (2**18, 3, 8000), (40, 256, 8000), (2**18, 3, -1)]


@pytest.mark.parametrize(("pairs", "block", "cost"), CUTS)
@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize("name", ROWS)
def test_tiles_give_the_values_and_gradients_of_plain_loops(
    name: str, heads: tuple[int, int], pairs: int, block: int, cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, value in (("TILE_PAIRS", pairs), ("BLOCK", block), ("TILE_COST", cost)):
        monkeypatch.setattr(tiles, setting, value)
    segments = row(name)
    tensors = problem(segments.length, *heads)
    expected = values_and_gradients(by_loops, segments, tensors, 0.7)
    for found, wanted in zip(
        values_and_gradients(attention_over_segments, segments, tensors, 0.7), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 4])
@pytest.mark.parametrize("name", ROWS)
def test_recomputed_probabilities_equal_saved_ones(name: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.models.kernels.attention.SAVED_HEAD_SIZES", kept)
    segments = row(name)
    tensors = problem(segments.length, 4, 2)
    expected = values_and_gradients(by_loops, segments, tensors, 0.5)
    for found, wanted in zip(
        values_and_gradients(attention_over_segments, segments, tensors, 0.5), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_numbers_worked_out_by_hand() -> None:
    """One head of size 1, keys log 1, log 2, log 3, queries 1: weights are proportional to 1, 2, 3."""
    keys = torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64).log().view(1, 1, 4, 1)
    values = torch.tensor([12.0, 24.0, 36.0, 48.0], dtype=torch.float64).view(1, 1, 4, 1)
    segments = Segments((Segment(0, 2), Segment(2, 3, 0, 2), Segment(3, 4, 0, 2)), 4)
    for attention in (attention_over_segments, by_flex):
        found = attention(torch.ones_like(keys), keys, values, segments, 1.0)
        # 12; (12 + 2·24)/3; (12 + 2·24 + 3·36)/6; (12 + 2·24 + 48)/4, blind to the third.
        assert found.flatten().tolist() == pytest.approx([12.0, 20.0, 28.0, 27.0])


@pytest.mark.parametrize("name", ROWS)
def test_the_mask_of_a_row(name: str) -> None:
    segments = row(name)
    position = torch.arange(segments.length)
    none = torch.tensor(0)
    found = visible(segments)(none, none, position[:, None], position[None, :])
    expected = [[slow.sees(segments.segments, i, j) for j in position] for i in position]
    assert found.tolist() == expected


@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
@pytest.mark.parametrize("name", ROWS)
def test_flex_attention_gives_the_values_of_plain_loops(name: str, heads: tuple[int, int]) -> None:
    """Values only: its gradients need a GPU."""
    segments = row(name)
    *inputs, _ = (x.detach() for x in problem(segments.length, *heads))
    found, expected = (attention(*inputs, segments, 0.7) for attention in (by_flex, by_loops))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_bfloat16_values_differ_by_their_rounding_only() -> None:
    segments = row("groups of all sizes")
    exact = problem(segments.length, 4, 2, torch.float32)
    # Queries and keys come in float32 from the rotation, values in bfloat16 from their product.
    rounded = [x.detach().to(torch.bfloat16 if i >= 2 else torch.float32) for i, x in enumerate(exact)]
    rounded = [x.requires_grad_(i < 3) for i, x in enumerate(rounded)]
    theirs = values_and_gradients(attention_over_segments, segments, exact, 0.5)
    for found, wanted in zip(
        values_and_gradients(attention_over_segments, segments, rounded, 0.5), theirs, strict=True
    ):
        assert 0 < (found - wanted).abs().max() < 4 * 2**-8 * wanted.abs().max()


def test_a_group_in_tiles_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of 3 and completions of 2 and 1: the prompt by itself, and two blocks that attend to it.

    The two pad 2 · 2 · (3 + 2) pairs − 2 · 5 − 1 · 4 = 6; with the prompt in the same tile it were far more.
    """
    monkeypatch.setattr(tiles, "TILE_COST", 6)
    prompt, completions = make_tiles((Segment(0, 3), Segment(3, 5, 0, 3), Segment(5, 6, 0, 3)))
    hidden = float("-inf")
    assert prompt.query_Sc.tolist() == prompt.key_SK.tolist() == [[0, 1, 2]]
    assert prompt.mask_XcK.tolist() == [[[0, hidden, hidden], [0, 0, hidden], [0, 0, 0]]]
    assert completions.query_Sc.tolist() == [[3, 4], [5, 0]]
    assert completions.key_SK.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 5, 0]]
    assert completions.padding.tolist() == [3]
    assert completions.mask_XcK.tolist() == [[[0, 0, 0, 0, hidden], [0, 0, 0, 0, 0]]]


@pytest.mark.parametrize("seed", range(5))
def test_every_query_is_in_one_tile_with_the_keys_it_attends_to(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    segments: list[Segment] = []
    end = 0
    for _ in range(6):
        prompt, *completions = torch.randint(1, 700, (5,), generator=generator).tolist()
        start, end = end, end + prompt
        segments.append(Segment(start, end))
        for length in completions[: seed % 4]:
            segments.append(Segment(end, end + length, start, start + prompt))
            end += length
    found: dict[int, list[int]] = {}
    largest = 0
    for tile in make_tiles(segments):
        S, c = tile.query_Sc.shape
        mask = tile.mask_XcK.expand(S, -1, -1)
        assert S == 1 or mask.numel() <= tiles.TILE_PAIRS
        largest = max(largest, c)
        padding = set(tile.padding.tolist())
        for s in range(S):
            for i in range(c):
                if s * c + i not in padding:
                    query = int(tile.query_Sc[s, i])
                    assert query not in found
                    found[query] = sorted(tile.key_SK[s][mask[s, i] == 0].tolist())
    assert largest <= tiles.BLOCK
    for start, segment_end, prompt, prompt_end in segments:
        for query in range(start, segment_end):
            assert found.pop(query) == [*range(prompt, prompt_end), *range(start, query + 1)]
    assert not found


def test_padding_costs_no_more_than_another_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of 10, 9 and 3: one tile pads 19 + 91 pairs, a second one for the shortest saves 91 of them."""
    segments = (Segment(0, 10), Segment(10, 19), Segment(19, 22))
    for cost, widths in ((110, [10]), (109, [10, 3]), (18, [10, 9, 3])):
        monkeypatch.setattr(tiles, "TILE_COST", cost)
        assert [tile.query_Sc.shape[1] for tile in make_tiles(segments)] == widths


def test_without_segments_it_computes_the_same_as_sdpa() -> None:
    policy, own = tiny_policy(), tiny_policy()
    policy.model.config._attn_implementation = NAME
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    seen = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    assert own.model.config._attn_implementation == "sdpa"
    for mask in (seen, None):
        assert torch.equal(
            policy.model(input_ids=ids, attention_mask=mask).logits,
            own.model(input_ids=ids, attention_mask=mask).logits,
        )
