import math
import random

import pytest
import torch

from oracles import sampling
from sharpen.rollout.sampling import Truncation, sample, uniforms

JUST_BELOW_ONE = 1 - 2**-53


def assert_uniform(numbers, bins=100):
    """χ² over equal bins and Kolmogorov–Smirnov, with thresholds wide enough for a fixed seed."""
    numbers = numbers.flatten()
    expected = len(numbers) / bins
    counts = torch.bincount((numbers * bins).long(), minlength=bins).double()
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi_square - (bins - 1)) < 4.5 * math.sqrt(2 * (bins - 1))
    ordered, rank = numbers.sort().values, torch.arange(len(numbers) + 1, dtype=torch.float64) / len(numbers)
    distance = torch.maximum((rank[1:] - ordered).max(), (ordered - rank[:-1]).max()).item()
    assert distance * math.sqrt(len(numbers)) < 2.0


def assert_unrelated(a, b, bins=10):
    """No linear correlation, and all pairs (a, b) equally frequent."""
    a, b = a.flatten(), b.flatten()
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert abs(correlation) * math.sqrt(len(a)) < 4
    assert_uniform(((a * bins).floor() + b) / bins, bins=bins * bins)


def test_shape_type_and_range():
    numbers = uniforms(3, [5, 9, 2], 40)
    assert numbers.shape == (3, 40)
    assert numbers.dtype == torch.float64
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert uniforms(3, [], 4).shape == (0, 4)
    assert uniforms(3, [1, 2], 0).shape == (2, 0)


def test_positions_go_on_from_an_offset():
    whole = uniforms(3, [5, 9, 2], 40)
    later = uniforms(3, [5, 9, 2], 10, offsets=[0, 7, 30])
    assert torch.equal(later[0], whole[0, :10])
    assert torch.equal(later[1], whole[1, 7:17])
    assert torch.equal(later[2], whole[2, 30:])


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31])
def test_uniform_over_draws_and_positions(seed):
    numbers = uniforms(seed, range(1500), 64)
    assert_uniform(numbers)
    for position in (0, 1, 31, 63):
        assert_uniform(numbers[:, position], bins=40)
    for draw in (0, 1, 1499):
        assert_uniform(uniforms(seed, [draw], 4000), bins=40)


def test_uniform_over_seeds():
    assert_uniform(torch.cat([uniforms(seed, [0, 1], 8) for seed in range(2000)]))
    assert_uniform(torch.cat([uniforms(seed, [0], 1) for seed in range(2000)]), bins=20)


def test_every_leading_bit_is_a_fair_coin():
    numbers = uniforms(7, range(2000), 50).flatten()
    for bit in range(1, 41):
        ones = ((numbers * 2**bit).floor() % 2).mean().item()
        assert abs(ones - 0.5) * 2 * math.sqrt(len(numbers)) < 4.5


@pytest.mark.parametrize("lag", [1, 2, 7, 32])
def test_positions_are_unrelated(lag):
    numbers = uniforms(11, range(1500), 80)
    assert_unrelated(numbers[:, :-lag], numbers[:, lag:])


@pytest.mark.parametrize("lag", [1, 2, 8, 64, 256])
@pytest.mark.parametrize("shift", [0, 1])
def test_draws_are_unrelated(lag, shift):
    numbers = uniforms(11, range(1200), 60)
    assert_unrelated(numbers[:-lag, shift:], numbers[lag:, : 60 - shift])


@pytest.mark.parametrize("other", [1, 2, 256, 2**16, 2**32])
def test_seeds_are_unrelated(other):
    here, there = uniforms(0, range(1000), 60), uniforms(other, range(1000), 60)
    assert_unrelated(here, there)
    assert_unrelated(here[1:], there[:-1])
    assert_unrelated(here[:, 1:], there[:, :-1])


def test_no_two_streams_overlap():
    """A key such as seed + draw id would repeat numbers across seeds."""
    seeds = [0, 1, 2, 3, 255, 256, 2**31, 2**32, 2**32 + 1]
    ids = [*range(40), 256, 2**16, 2**31, 2**32, 2**32 + 1, 2**40]
    numbers = torch.cat([uniforms(seed, ids, 500) for seed in seeds])
    assert len(numbers.unique()) == numbers.numel()


def test_the_same_numbers_in_any_company_and_to_any_length():
    full = uniforms(42, range(50), 100)
    assert torch.equal(uniforms(42, range(50), 100), full)
    assert torch.equal(uniforms(42, [17], 100)[0], full[17])
    assert torch.equal(uniforms(42, [49, 3, 3, 20], 100), full[[49, 3, 3, 20]])
    assert torch.equal(uniforms(42, range(50), 7), full[:, :7])
    assert torch.equal(uniforms(42, [8, 2**40], 1)[0], full[8, :1])


def test_torch_own_generator_has_no_part_in_it():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = uniforms(5, [1], 10)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(uniforms(5, [1], 10), first)


TRUNCATIONS = [
    {},
    {"temperature": 0.7},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 3},
    {"top_p": 0.55},
    {"top_p": 0.9},
    {"min_p": 0.3},
    {"top_k": 4, "top_p": 0.8},
    {"top_k": 5, "top_p": 0.9, "min_p": 0.2, "temperature": 1.3},
]


def chosen(logits, numbers, **truncation):
    """``sample`` for one distribution and many uniform numbers."""
    logits_BV = torch.tensor([logits], dtype=torch.float64).expand(len(numbers), -1)
    return sample(logits_BV, torch.as_tensor(numbers, dtype=torch.float64), Truncation(**truncation))


def kept(probabilities, **truncation):
    """Which tokens can be drawn from these probabilities."""
    tokens, _ = chosen([math.log(p) for p in probabilities], torch.arange(2000) / 2000, **truncation)
    return set(tokens.tolist())


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_each_token_owns_its_probability_of_the_unit_interval(seed, truncation):
    rng = random.Random(seed)
    logits = [rng.gauss(0, 1.5) for _ in range(8)]
    count = 4000
    tokens, logprobs = chosen(logits, (torch.arange(count) + 0.5) / count, **truncation)
    expected = torch.tensor(sampling.truncated(logits, **truncation), dtype=torch.float64)
    shares = torch.bincount(tokens, minlength=8).double() / count
    torch.testing.assert_close(shares, expected, rtol=0, atol=1.5 / count)
    assert not tokens[expected[tokens] == 0].numel()
    torch.testing.assert_close(logprobs.double(), expected[tokens].log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_rows_of_their_own_against_the_plain_loop(truncation):
    rng = random.Random(1)
    for _ in range(8):
        vocabulary = rng.randint(1, 30)
        rows = [[rng.gauss(0, 3) for _ in range(vocabulary)] for _ in range(16)]
        numbers = [rng.random() for _ in rows]
        tokens, logprobs = sample(
            torch.tensor(rows, dtype=torch.float64),
            torch.tensor(numbers, dtype=torch.float64),
            Truncation(**truncation),
        )
        for row, number, token, logprob in zip(rows, numbers, tokens.tolist(), logprobs.tolist(), strict=True):
            probabilities = sampling.truncated(row, **truncation)
            assert token == sampling.inverse_cdf(probabilities, number)
            assert logprob == pytest.approx(math.log(probabilities[token]), abs=1e-6)


def test_a_number_on_an_edge_belongs_to_the_token_above():
    quarters = [0.0, 0.25, 0.5, 0.75]
    assert chosen([1.0] * 4, quarters)[0].tolist() == [0, 1, 2, 3]
    gaps = [-math.inf, 1.0, 1.0, -math.inf, 1.0, 1.0, -math.inf]
    assert chosen(gaps, quarters)[0].tolist() == [1, 2, 4, 5]
    assert chosen([1.0] * 1024, [512 / 1024, 767 / 1024, 768 / 1024])[0].tolist() == [512, 767, 768]


def test_filters_in_numbers():
    probabilities = [0.15, 0.5, 0.05, 0.3]
    assert kept(probabilities) == {0, 1, 2, 3}
    assert kept(probabilities, top_k=2) == {1, 3}
    assert kept(probabilities, top_k=9) == {0, 1, 2, 3}
    assert kept(probabilities, top_p=0.49) == {1}
    assert kept(probabilities, top_p=0.51) == {1, 3}
    assert kept(probabilities, top_p=0.81) == {0, 1, 3}
    assert kept(probabilities, top_p=1e-9) == kept(probabilities, top_p=0.0) == {1}
    assert kept(probabilities, min_p=0.29) == {0, 1, 3}
    assert kept(probabilities, min_p=0.31) == {1, 3}
    assert kept(probabilities, min_p=1.0) == {1}


def test_the_order_of_the_filters():
    probabilities = [0.15, 0.5, 0.05, 0.3]
    # Of the three most probable tokens the first two hold 0.8/0.95 = 0.842.
    assert kept(probabilities, top_k=3, top_p=0.83) == {1, 3}
    # min_p alone would leave 0.5 and 0.3, of which the first then held 0.625.
    assert kept(probabilities, top_p=0.62, min_p=0.4) == {1, 3}


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 0.3}, {"min_p": 1.0}])
def test_equal_logits_leave_at_least_one_token(filters):
    tokens, logprobs = chosen([0.5] * 4, [0.0, 0.3, 0.6, JUST_BELOW_ONE], **filters)
    assert logprobs.isfinite().all()
    assert set(tokens.tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("truncation", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.01}, {"temperature": 0.3}])
def test_a_token_without_probability_is_never_drawn(dtype, truncation):
    numbers = torch.tensor([0.0, 5e-324, 2**-53, 0.5, 1 - 2**-24, JUST_BELOW_ONE], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for vocabulary in (2, 9, 1000):
        for _ in range(20):
            logits = 3 * torch.randn(len(numbers), vocabulary, dtype=dtype, generator=generator)
            impossible = torch.rand(logits.shape, generator=generator) < 0.4
            impossible[:, 0] = impossible[:, -1] = vocabulary > 2
            impossible[:, vocabulary // 2] = False
            logits[impossible] = -math.inf
            tokens, logprobs = sample(logits, numbers, Truncation(**truncation))
            assert not impossible.gather(1, tokens[:, None]).any()
            assert logprobs.isfinite().all()
            assert (logprobs <= 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gap_behind_a_tiny_mass_is_never_drawn(dtype):
    """Sums of numbers of very different size round most: sweep the numbers at the edge between them."""
    generator = torch.Generator().manual_seed(0)
    for gap in (128, 256, 512):
        logits = torch.randn(1, 1000, dtype=dtype, generator=generator)
        logits[:, :gap] -= 25
        logits[:, gap : gap + 40] = -math.inf
        edge = logits.double().softmax(1)[0, :gap].sum()
        numbers = edge * (1 + torch.linspace(-1e-5, 1e-5, 4001, dtype=torch.float64))
        tokens, logprobs = sample(logits.expand(len(numbers), -1), numbers)
        assert ((tokens < gap) | (tokens >= gap + 40)).all()
        assert logprobs.isfinite().all()
        assert {*tokens.tolist()} == {gap - 1, gap + 40}


def test_a_truncated_token_is_never_drawn_at_the_edges():
    logits = [5.0, 1.0, 4.9, 0.0, 4.8, 4.7]
    for filters in ({"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.88}):
        assert chosen(logits[::-1], [0.0, JUST_BELOW_ONE], **filters)[0].tolist() == [3, 5]


@pytest.mark.parametrize("number", [0.0, 0.5, JUST_BELOW_ONE])
def test_temperature_zero_is_the_largest_logit(number):
    tokens, logprobs = chosen([0.1, 2.0, -math.inf, 1.999], [number], temperature=0.0)
    assert tokens.tolist() == [1]
    assert logprobs.tolist() == [0.0]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logits_that_are_no_numbers_show_in_the_log_probability(temperature):
    _, logprobs = chosen([0.1, math.nan, 2.0, 1.0], [0.5], temperature=temperature)
    assert math.isnan(logprobs.item())


def test_a_row_does_not_depend_on_the_others():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(12, 300, generator=generator)
    numbers = torch.rand(12, dtype=torch.float64, generator=generator)
    for truncation in (Truncation(), Truncation(top_k=20, top_p=0.9, min_p=0.01)):
        tokens, logprobs = sample(logits, numbers, truncation)
        for row in range(12):
            alone = sample(logits[row : row + 1], numbers[row : row + 1], truncation)
            assert alone[0].item() == tokens[row].item()
            assert alone[1].item() == pytest.approx(logprobs[row].item(), abs=1e-6)


@pytest.mark.parametrize("truncation", [{}, {"temperature": 0.6}, {"top_k": 50, "top_p": 0.95}])
def test_a_whole_vocabulary_in_float32(truncation):
    """Another token than the plain loop's is allowed only where the uniform number is at an edge of both."""
    rows, vocabulary = 10, 49152
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.linspace(0, 5, rows)[:, None]
    logits = sharpness * torch.randn(rows, vocabulary, generator=generator)
    numbers = torch.rand(rows, dtype=torch.float64, generator=generator)
    tokens, logprobs = sample(logits, numbers, Truncation(**truncation))
    for row in range(rows):
        probabilities = sampling.truncated(logits[row].tolist(), **truncation)
        start, end = sampling.interval(probabilities, tokens[row].item())
        assert start - 2e-6 <= numbers[row].item() < end + 2e-6
        assert probabilities[tokens[row]] > 0
        assert logprobs[row].item() == pytest.approx(math.log(probabilities[tokens[row]]), abs=1e-5)


def test_the_tail_of_a_whole_vocabulary_keeps_its_share():
    """Sums in float32 would lose tokens that together are far from rare."""
    vocabulary, count = 49152, 64
    logits = torch.full((count, vocabulary), -16.0)
    logits[:, 0] = 0.0
    share = (vocabulary - 1) / (vocabulary - 1 + math.exp(16))
    tail = 1 - share * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens, _ = sample(logits, tail, Truncation())
    expected = [vocabulary - 1 - int((i + 0.5) / count * (vocabulary - 1)) for i in range(count)]
    assert max(abs(t - e) for t, e in zip(tokens.tolist(), expected, strict=True)) <= 60
