"""A step computes what its floor counts and no more: floating-point operations, counted as PyTorch carries them out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sharpen.batch import Batch
from sharpen.methods.grpo import GRPO
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.training.update import accumulate_gradient
from tiny_models import loaded_policy

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("cases", "floor", "forced_sharpen", "synthetic")
SIZES = {"hidden_size": 32, "intermediate_size": 80, "head_dim": 8, "max_position_embeddings": 1024}


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@dataclass(frozen=True)
class Counted:
    """Operations in products with weights, and in attention's batched products."""

    products: int
    attention: int


def count(work: Callable[[], object]) -> Counted:
    with FlopCounterMode(display=False) as counter:
        work()
    by_name = {
        operation.__name__.split(".")[0]: n for operation, n in counter.get_flop_counts().get("Global", {}).items()
    }
    assert set(by_name) <= {"mm", "addmm", "bmm", "baddbmm"}
    products = by_name.get("mm", 0) + by_name.get("addmm", 0)
    return Counted(products, sum(by_name.values()) - products)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


def policy_and_shape(folder: Path):
    from floor import Shape

    policy = loaded_policy(folder, **SIZES)
    policy.eos_ids = frozenset()
    return policy, Shape.of(folder)


def batch_of(policy: Policy, case, flat: int = 0) -> Batch:
    from synthetic import grpo_batch, random_groups

    groups = random_groups(case, policy.config.vocab_size, flat=flat)
    return grpo_batch(GRPO(group_size=case.group), groups, case.limit)


def trained(policy: Policy, batch: Batch, tokens: int = 10_000) -> Counted:
    (objective,) = GRPO(group_size=2).objectives()
    limits = MicrobatchLimits(tokens, shared_prompt=True)
    return count(lambda: accumulate_gradient(policy, objective, batch, 1.0, limits))


# Prompt, limit of a completion, prompts, group; each differs from the first in one of them.
CASES = [(24, 12, 3, 4), (96, 12, 3, 4), (24, 48, 3, 4), (24, 12, 9, 4), (24, 12, 3, 16), (600, 12, 2, 4)]


@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("spread", [True, False])
def test_training_multiplies_each_token_with_each_weight_once(
    folder: Path, sizes: tuple[int, ...], spread: bool
) -> None:
    """A group's prompt once, no token after the last that is trained, and the head for completions alone."""
    from cases import Case
    from floor import training

    policy, shape = policy_and_shape(folder)
    case = Case("none", *sizes, spread=spread)
    found = trained(policy, batch_of(policy, case))
    assert found.products == 6 * shape.body * inputs(case) + 6 * shape.head * sum(case.lengths())
    needed, _ = training(shape, case, case.lengths(), number_bytes=4)
    pairs = needed.operations - found.products
    # A block of queries meets its own keys on both sides of the diagonal, and of long keys scores are computed twice.
    # Short ones are padded to each other's size where that is cheaper than another call.
    assert pairs <= found.attention <= (3.5 if case.prompt < 256 else 2.0) * pairs


def inputs(case) -> int:
    """Tokens that go through the layers: the last of a completion predicts nothing."""
    return case.prompts * case.prompt + sum(n - 1 for n in case.lengths())


def test_small_micro_batches_multiply_the_same_but_for_the_prompts_they_repeat(folder: Path) -> None:
    from cases import Case

    policy, shape = policy_and_shape(folder)
    batch = batch_of(policy, Case("none", 24, 12, 3, 4, spread=False))
    # A prompt of 24 with two completions of 11 inputs are 46 tokens, so that each prompt is there twice.
    whole, cut = trained(policy, batch), trained(policy, batch, tokens=48)
    assert cut.products - whole.products == 6 * shape.body * 3 * 24
    # Of 60 tokens too: three completions would be 57, but 2 + 2 are more even than 3 + 1.
    assert trained(policy, batch, tokens=60) == cut


def test_groups_without_spread_cost_nothing(folder: Path) -> None:
    from cases import Case

    policy, _ = policy_and_shape(folder)
    case = Case("none", 24, 12, 4, 4, spread=False)
    whole = trained(policy, batch_of(policy, case))
    half = trained(policy, batch_of(policy, case, flat=2))
    assert whole.products == 2 * half.products > 0
    assert trained(policy, batch_of(policy, case, flat=4)) == Counted(0, 0)


@pytest.mark.parametrize("sizes", CASES)
def test_a_rollout_multiplies_each_token_with_each_weight_once(folder: Path, sizes: tuple[int, ...]) -> None:
    """A prompt once for its group; the last token of a completion never."""
    from cases import Case
    from floor import rollout

    policy, shape = policy_and_shape(folder)
    case = Case("none", *sizes, spread=False)
    found = count(lambda: drawn(policy, case))
    assert found.products == products(shape, case)
    # The counter does not know the attention of a prefill. A step looks at its keys in multiples of 16.
    _, *steps = rollout(shape, case, case.lengths(), number_bytes=4)
    pairs = sum(work.operations for work in steps) - 2 * (shape.body + shape.head) * case.completions * len(steps)
    assert pairs <= found.attention <= 1.6 * pairs


def products(shape, case) -> int:
    """The prefill gives a prompt's first logits once for the group, and each further token its own."""
    steps = sum(n - 1 for n in case.lengths())
    return 2 * shape.body * inputs(case) + 2 * shape.head * (case.prompts + steps)


def test_rows_that_have_ended_are_fed_until_a_quarter_has(folder: Path) -> None:
    from cases import Case

    policy, shape = policy_and_shape(folder)
    case = Case("none", 24, 48, 3, 16)
    found = count(lambda: drawn(policy, case))
    assert products(shape, case) < found.products < products(shape, case) / 0.75


def drawn(policy: Policy, case) -> object:
    from forced_sharpen import engine_of_lengths
    from synthetic import random_prompts

    engine = engine_of_lengths(case.lengths())(policy)
    ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]
    return generate(engine, random_prompts(case, policy.config.vocab_size), ids, Sampling(case.limit), seed=1)


def test_the_counter_sees_what_it_counts() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count(lambda: a @ b) == Counted(2 * 3 * 5 * 7, 0)
    assert count(lambda: a.expand(2, 3, 5) @ b.expand(2, 5, 7)) == Counted(0, 2 * 2 * 3 * 5 * 7)
