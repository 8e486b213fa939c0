"""The chunked head against a plain softmax."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from oracles import distributions
from sharpen.models.logprobs import full_logprobs, selected_logprobs

N, H, V = 13, 6, 37


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, V, (N,), generator=generator)
    return hidden, weight, targets, torch.randn(N, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rows_per_chunk", [1, 2, 5, 12, 13, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_value_entropy_and_gradients_equal_torch(rows_per_chunk: int, temperature: float) -> None:
    hidden, weight, targets, upstream = problem()
    all_logprobs = (hidden @ weight.T / temperature).log_softmax(dim=-1)
    expected = all_logprobs[torch.arange(N), targets]
    expected_gradients = torch.autograd.grad((upstream * expected).sum(), (hidden, weight))

    found, entropy, _ = selected_logprobs(hidden, weight, targets, temperature, chunk_bytes=4 * V * rows_per_chunk)
    found_gradients = torch.autograd.grad((upstream * found).sum(), (hidden, weight))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(entropy, -(all_logprobs.exp() * all_logprobs).sum(dim=-1), rtol=1e-13, atol=1e-13)
    assert not entropy.requires_grad
    for mine, theirs in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


def test_numbers_worked_out_by_hand() -> None:
    """Logits log 1, log 2, log 5: probabilities 1/8, 2/8, 5/8; halved by temperature 2 they are 1, √2, √5."""
    weight = torch.tensor([[1.0], [2.0], [5.0]], dtype=torch.float64).log()
    hidden, targets = torch.ones(2, 1, dtype=torch.float64), torch.tensor([2, 0])
    found, entropy, _ = selected_logprobs(hidden, weight, targets, 1.0)
    assert found.tolist() == pytest.approx([math.log(5 / 8), math.log(1 / 8)])
    by_hand = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    assert entropy.tolist() == pytest.approx([by_hand, by_hand])
    found, *_ = selected_logprobs(hidden, weight, targets, 2.0)
    total = 1 + math.sqrt(2) + math.sqrt(5)
    assert found.tolist() == pytest.approx([math.log(math.sqrt(5) / total), math.log(1 / total)])


def test_a_frozen_part_gets_no_gradient_and_the_other_the_same() -> None:
    hidden, weight, targets, upstream = problem()
    both = torch.autograd.grad((upstream * selected_logprobs(hidden, weight, targets, 0.9)[0]).sum(), (hidden, weight))
    alone = selected_logprobs(hidden, weight.detach(), targets, 0.9)[0]
    torch.testing.assert_close(torch.autograd.grad((upstream * alone).sum(), hidden)[0], both[0], rtol=0, atol=0)
    alone = selected_logprobs(hidden.detach(), weight, targets, 0.9)[0]
    torch.testing.assert_close(torch.autograd.grad((upstream * alone).sum(), weight)[0], both[1], rtol=0, atol=0)


def test_logits_far_apart_neither_overflow_nor_underflow() -> None:
    weight = torch.tensor([[0.0], [1000.0], [999.0]])
    found, entropy, _ = selected_logprobs(torch.ones(1, 1), weight, torch.tensor([2]), 1.0)
    p = math.exp(-1) / (1 + math.exp(-1))
    assert found.item() == pytest.approx(math.log(p), rel=1e-6)
    assert entropy.item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-5)


def test_bfloat16_products_differ_by_their_rounding_only() -> None:
    hidden, weight, targets, upstream = (x.float().detach() if x.is_floating_point() else x for x in problem())
    hidden.requires_grad_(), weight.requires_grad_()
    rounded = (hidden.bfloat16() @ weight.bfloat16().T).float().log_softmax(-1)[torch.arange(N), targets]
    found, *_ = selected_logprobs(hidden, weight, targets, 1.0, torch.bfloat16, chunk_bytes=4 * V * 4)
    torch.testing.assert_close(found, rounded, rtol=1e-5, atol=1e-5)
    exact = torch.autograd.grad(
        (upstream * (hidden @ weight.T).log_softmax(-1)[torch.arange(N), targets]).sum(), (hidden, weight)
    )
    for mine, theirs in zip(torch.autograd.grad((upstream * found).sum(), (hidden, weight)), exact, strict=True):
        assert (mine - theirs).abs().max() < 0.02 * theirs.abs().max()


def head_of(weight, dtype=None):
    return lambda hidden: hidden.to(dtype or weight.dtype) @ weight.to(dtype or weight.dtype).T


def both_heads(entropy_gradient, hidden, weight, targets, temperature, reference, rows_per_chunk):
    """The chunked head, and the function of given logits."""
    chunked = selected_logprobs(
        hidden,
        weight,
        targets,
        temperature,
        entropy_gradient=entropy_gradient,
        reference=None if reference is None else (reference[0], head_of(reference[1])),
        chunk_bytes=4 * V * rows_per_chunk,
    )
    ref_logits = None if reference is None else reference[0] @ reference[1].T
    full = full_logprobs(
        hidden @ weight.T, targets, temperature, entropy_gradient=entropy_gradient, reference_NV=ref_logits
    )
    return chunked, full


def ref_problem() -> tuple[Tensor, Tensor]:
    """A reference with another hidden size."""
    generator = torch.Generator().manual_seed(9)
    return tuple(torch.randn(n, H + 2, generator=generator, dtype=torch.float64) for n in (N, V))  # type: ignore[return-value]


@pytest.mark.parametrize("rows_per_chunk", [1, 5, 13, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_values_follow_the_formulas(rows_per_chunk: int, temperature: float) -> None:
    hidden, weight, targets, _ = problem()
    ref_hidden, ref_weight = ref_problem()
    logits = (hidden @ weight.T).tolist()
    ref_logits = (ref_hidden @ ref_weight.T).tolist()
    policy = [distributions.softmax(row, temperature) for row in logits]
    reference = [distributions.softmax(row, temperature) for row in ref_logits]
    for found in both_heads(False, hidden, weight, targets, temperature, (ref_hidden, ref_weight), rows_per_chunk):
        for n, target in enumerate(targets.tolist()):
            assert found.logprobs_N[n].item() == pytest.approx(math.log(policy[n][target]), rel=1e-12)
            assert found.entropy_N[n].item() == pytest.approx(distributions.entropy(policy[n]), rel=1e-12)
            assert found.kl_N[n].item() == pytest.approx(distributions.kl(policy[n], reference[n]), rel=1e-12)
        assert not found.entropy_N.requires_grad


@pytest.mark.parametrize("wanted", ["entropy", "kl", "logprobs kl", "logprobs entropy", "entropy kl logprobs"])
@pytest.mark.parametrize("rows_per_chunk", [1, 5, 13, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_the_gradients_of_entropy_and_exact_kl_equal_autograd_over_the_whole_vocabulary(
    rows_per_chunk: int, temperature: float, wanted: str
) -> None:
    hidden, weight, targets, upstream = problem()
    ref_hidden, ref_weight = ref_problem()
    logprobs = (hidden @ weight.T / temperature).log_softmax(-1)
    ref_logprobs = (ref_hidden @ ref_weight.T / temperature).log_softmax(-1)
    whole = {
        "logprobs": logprobs[torch.arange(N), targets],
        "entropy": -(logprobs.exp() * logprobs).sum(-1),
        "kl": (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1),
    }
    factors = {"logprobs": upstream, "entropy": upstream.flip(0) * 2, "kl": upstream.roll(3) - 0.5}

    def loss(terms: dict[str, Tensor]) -> Tensor:
        return sum(((factors[name] * terms[name]).sum() for name in wanted.split()), torch.zeros(()))

    expected = torch.autograd.grad(loss(whole), (hidden, weight))
    for found in both_heads(True, hidden, weight, targets, temperature, (ref_hidden, ref_weight), rows_per_chunk):
        terms = {"logprobs": found.logprobs_N, "entropy": found.entropy_N, "kl": found.kl_N}
        for mine, theirs in zip(torch.autograd.grad(loss(terms), (hidden, weight)), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_numbers_worked_out_by_hand_of_entropy_and_kl() -> None:
    """π = (1/2, 1/2) against π_ref = (1/4, 3/4), and its mirror, with the gradients of the logits."""
    one = torch.ones(1, 1, dtype=torch.float64)
    even = torch.tensor([[0.0], [0.0]], dtype=torch.float64)
    odd = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    targets = torch.tensor([0])
    weight = even.clone().requires_grad_()
    found = selected_logprobs(one, weight, targets, 1.0, entropy_gradient=True, reference=(one, head_of(odd)))
    assert found.kl_N.item() == pytest.approx(0.5 * math.log(4 / 3))
    # p (log p − log q − KL): (log 2 − ½ log 4/3) / 2 = log(3) / 4 for the first.
    (slope,) = torch.autograd.grad(found.kl_N.sum(), weight)
    assert slope.flatten().tolist() == pytest.approx([math.log(3) / 4, -math.log(3) / 4])
    weight = odd.clone().requires_grad_()
    found = selected_logprobs(one, weight, targets, 1.0, entropy_gradient=True, reference=(one, head_of(even)))
    entropy = math.log(4) - 0.75 * math.log(3)
    assert found.entropy_N.item() == pytest.approx(entropy)
    assert found.kl_N.item() == pytest.approx(math.log(2) - entropy)
    # dH/dz₀ = −¼ (−log 4 + H) = 3/16 · log 3; against a uniform reference KL = log 2 − H.
    (slope,) = torch.autograd.grad(found.entropy_N.sum(), weight, retain_graph=True)
    assert slope.flatten().tolist() == pytest.approx([3 / 16 * math.log(3), -3 / 16 * math.log(3)])
    (slope,) = torch.autograd.grad(found.kl_N.sum(), weight)
    assert slope.flatten().tolist() == pytest.approx([-3 / 16 * math.log(3), 3 / 16 * math.log(3)])


def test_the_kl_to_itself_is_zero_with_a_gradient_of_zero_also_in_bfloat16() -> None:
    hidden, weight, targets, _ = problem()
    for dtype in (torch.float32, torch.bfloat16):
        h, w = hidden.detach().float().requires_grad_(), weight.detach().float().requires_grad_()
        kl = selected_logprobs(h, w, targets, 0.7, dtype, reference=(h.detach(), head_of(w.detach(), dtype))).kl_N
        assert kl.abs().max() < 1e-6
        for gradient in torch.autograd.grad(kl.sum(), (h, w)):
            assert gradient.abs().max() < 1e-5


def test_bfloat16_gradients_of_entropy_and_kl_differ_by_their_rounding_only() -> None:
    hidden, weight, targets, upstream = (x.float().detach() if x.is_floating_point() else x for x in problem())
    ref_hidden, ref_weight = (x.float() for x in ref_problem())
    hidden.requires_grad_(), weight.requires_grad_()
    found, exact = (
        selected_logprobs(
            hidden,
            weight,
            targets,
            1.0,
            dtype,
            entropy_gradient=True,
            reference=(ref_hidden, head_of(ref_weight, dtype)),
        )
        for dtype in (torch.bfloat16, torch.float32)
    )
    for name in ("entropy_N", "kl_N"):
        mine, theirs = getattr(found, name), getattr(exact, name)
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.02)
        gradients = [
            torch.autograd.grad((upstream * x).sum(), (hidden, weight), retain_graph=True) for x in (mine, theirs)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one - other).abs().max() < 0.04 * other.abs().max()


def test_no_gradient_reaches_the_reference() -> None:
    hidden, weight, targets, _ = problem()
    reference = tuple(x.requires_grad_() for x in ref_problem())
    for found in both_heads(True, hidden, weight, targets, 1.0, reference, 4):
        assert torch.autograd.grad(found.kl_N.sum(), reference, allow_unused=True) == (None, None)


def test_no_tensor_of_all_tokens_and_the_vocabulary_exists() -> None:
    """Forward and backward allocate at most a chunk of logits, also with entropy and KL."""
    tokens, vocabulary, chunk = 64, 512, 8
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, H, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, H, generator=generator, requires_grad=True)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        found = selected_logprobs(
            hidden,
            weight,
            torch.zeros(tokens, dtype=torch.long),
            0.9,
            entropy_gradient=True,
            reference=(hidden.detach(), head_of(weight.detach().clone())),
            chunk_bytes=4 * vocabulary * chunk,
        )
        (found.logprobs_N + found.entropy_N + found.kl_N).sum().backward()
    assert largest == chunk * vocabulary


class Count(TorchDispatchMode):
    """Counts matrix products and records the largest tensor."""

    products = largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.products += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize(("rows_per_chunk", "products"), [(13, 3), (100, 3), (7, 2 * 3 + 1), (5, 3 * 3 + 2)])
def test_the_logits_of_the_first_chunk_are_computed_once(rows_per_chunk: int, products: int) -> None:
    """One product forward and two backward per chunk; all but the first chunk recompute their logits."""
    hidden, weight, targets, upstream = problem()
    with Count() as count:
        found = selected_logprobs(hidden, weight, targets, 0.7, chunk_bytes=8 * V * rows_per_chunk)
        found.logprobs_N.backward(upstream)
    assert count.products == products
    assert count.largest == max(min(N, rows_per_chunk) * V, V * H)


def test_an_almost_certain_token_has_an_accurate_small_gradient() -> None:
    """Logits 8 and 0: 1 − π = 1 / (1 + e⁸) = 0.0003, where bfloat16 numbers near 1 are 0.004 apart."""
    hidden = torch.tensor([[8.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], requires_grad=True)
    found = selected_logprobs(hidden, weight, torch.tensor([0]), 1.0, torch.bfloat16)
    found.logprobs_N.backward()
    small = 1 / (1 + math.exp(8))
    assert found.logprobs_N.item() == pytest.approx(math.log1p(-small), rel=1e-3)
    assert hidden.grad.item() == pytest.approx(small, rel=1e-2)
    assert weight.grad.flatten().tolist() == pytest.approx([8 * small, -8 * small], rel=1e-2)


@pytest.mark.parametrize("blocks", [1, 4 * V, 3 * 8 * V, 2**22])
def test_the_block_size_changes_nothing(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.models.head.BLOCK_BYTES", blocks)
    hidden, weight, targets, _ = problem()
    all_logprobs = (hidden @ weight.T / 0.7).log_softmax(dim=-1)
    found = selected_logprobs(hidden, weight, targets, 0.7)
    torch.testing.assert_close(found.logprobs_N, all_logprobs[torch.arange(N), targets], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.entropy_N, -(all_logprobs.exp() * all_logprobs).sum(dim=-1), rtol=1e-13, atol=0)
