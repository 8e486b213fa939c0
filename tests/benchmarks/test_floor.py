"""The counting of the benchmark's floors, against sums worked out by hand and token by token."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("cases", "floor"):
        sys.modules.pop(name, None)


def small():
    from cases import Case
    from floor import Shape

    shape = Shape(hidden=2, intermediate=3, layers=1, heads=1, kv_heads=1, head_dim=2, vocabulary=5, tied=False)
    return shape, Case("none", prompt=3, limit=2, prompts=1, group=2)


def test_a_models_sizes_are_those_of_its_matrices():
    shape, _ = small()
    # q, k, v and o of 2 x 2, and three of 2 x 3; a head of 5 x 2, as many embeddings, three norms of 2.
    assert (shape.body, shape.head, shape.parameters) == (16 + 18, 10, 34 + 20 + 6)
    assert (shape.pair, shape.kv) == (2 * 2 + 2 * 2, 2 + 2)


def test_training_counts_the_prompt_once_and_no_last_token():
    from floor import Work, training

    shape, case = small()
    passes, optimizer = training(shape, case, [1, 2], number_bytes=4)
    # Inputs: the prompt's 3 and the first of the second completion's 2. Pairs: 1 + 2 + 3 of the prompt, 4 of that one.
    assert passes == Work(6 * 34 * 4 + 3 * 8 * 10 + 6 * 10 * 3, 2 * 4 * 44 + 4 * 60)
    assert optimizer == Work(0, 8 * 4 * 60)


def test_rollout_counts_a_prefill_and_the_rows_still_open():
    from floor import Work, rollout

    shape, case = small()
    # After the first token, which the prefill gives, one row of two goes on: it sees 3 of the prompt and itself.
    assert rollout(shape, case, [1, 2], number_bytes=4) == [
        Work(2 * 34 * 3 + 8 * 6 + 2 * 10, 4 * 44),
        Work(2 * 44 + 8 * 4, 4 * 44 + 4 * 4 * 4),
    ]


def test_rollout_reads_a_prompts_keys_once_for_its_group():
    from cases import Case
    from floor import rollout

    shape, _ = small()
    case = Case("none", prompt=10, limit=3, prompts=2, group=2)
    lengths = [3, 3, 2, 1]
    read = [work.bytes - 4 * 44 for work in rollout(shape, case, lengths, number_bytes=4)[1:]]
    # Numbers of a key and value: 4, of 4 bytes. First both prompts and three rows of 1, then one prompt and two of 2.
    assert read == [16 * (2 * 10 + 3 * 1), 16 * (1 * 10 + 2 * 2)]


def test_pairs_of_attention_are_those_counted_one_by_one():
    from cases import Case
    from floor import training

    shape, _ = small()
    case = Case("none", prompt=7, limit=6, prompts=2, group=3)
    lengths = [6, 1, 4, 2, 5, 3]
    pairs = inputs = 0
    for group in range(2):
        row = [("prompt", i) for i in range(7)]
        for member in range(3):
            row += [(member, 7 + i) for i in range(lengths[3 * group + member] - 1)]
        inputs += len(row)
        pairs += sum(key_of in ("prompt", query_of) and key <= query for query_of, query in row for key_of, key in row)
    operations = training(shape, case, lengths, number_bytes=4)[0].operations
    assert operations == 6 * 34 * inputs + 3 * 8 * pairs + 6 * 10 * sum(lengths)


def test_a_phase_takes_the_longer_of_its_operations_and_its_bytes():
    from floor import Rates, Work

    rates = Rates(operations=100.0, memory=10.0, cache=50.0, cache_bytes=20)
    assert rates.seconds([Work(300, 25), Work(100, 30), Work(10, 20)]) == 3.0 + 3.0 + 0.4


def test_lengths_are_log_normal_quantiles_around_half_the_limit():
    from cases import spread_lengths

    # At 1/8, 3/8, 5/8 and 7/8 the normal quantile z is −1.1503, −0.3186 and the same above 0: 50 · exp(0.5 z).
    assert spread_lengths(4, 100) == [28, 43, 59, 89]
    assert spread_lengths(1, 48) == [24]
    assert max(spread_lengths(1000, 16)) == 16
    assert min(spread_lengths(1000, 2)) == 1
