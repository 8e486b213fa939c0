"""Far from the policy that is compared with: no term overflows, none is cut off, and nearby every bit is as before."""

import math

import pytest
import torch

from sharpen.batch import Outputs
from sharpen.functional.losses import kl, policy
from sharpen.functional.losses.preference import dpo
from sharpen.functional.losses.ratio import log_ratio, ratio, ratio_less_1
from sharpen.methods import GRPO, GSPO, PPO, LossTerms, Method
from sharpen.methods.kl import KL
from sharpen.models.forward import MicrobatchLimits
from sharpen.training.token_stats import TokenStats
from tiny_models import learner_of, make_batch, own_logprobs, ragged_batch, tiny_policy, with_given

NATS = [0.0, 0.5, 19.5, 20.0, 20.5, 50.0, 88.0, 100.0, 1000.0, math.inf]
DTYPES = [torch.float32, torch.float64]
BOUNDS = {"eps_low": 0.2, "eps_high": 0.2}


def bounded(x):
    """e^x, and from 20 on its tangent there; an infinite x is one of 10⁴."""
    x = max(-1e4, min(x, 1e4))
    return math.exp(x) if x <= 20 else math.exp(20) * (x - 19)


def slope(x):
    """Of ``bounded``; none at infinity."""
    return 0.0 if math.isinf(x) else math.exp(min(x, 20))


def nats(x):
    return max(-1e4, min(x, 1e4))


def of_one(term, x, dtype):
    """A term of a token whose log π is ``x`` above that of the other policy, and ∂term/∂log π."""
    logprob = torch.tensor([[-1.0 + x if x > 0 else -1.0]], dtype=dtype)
    other = torch.tensor([[-1.0 if x > 0 else -1.0 - x]], dtype=dtype)
    if math.isinf(x):
        # Only a probability of 0 is infinitely far, of the one or of the other.
        logprob, other = (
            torch.full((1, 1), y, dtype=dtype) for y in ((-1.0, -math.inf) if x > 0 else (-math.inf, -1.0))
        )
    logprob.requires_grad_()
    found = term(logprob, other)
    found.sum().backward()
    assert found.isfinite().all()
    assert logprob.grad.isfinite().all()
    return found.item(), logprob.grad.item()


def approx(number, dtype):
    """Near the bound float32 knows x to 2·10⁻⁶, and so e^x to as large a share."""
    return pytest.approx(number, rel=1e-5 if dtype is torch.float32 else 1e-9, abs=1e-7)


both_sides = pytest.mark.parametrize("x", [*NATS, *(-x for x in NATS)])
in_both = pytest.mark.parametrize("dtype", DTYPES)


@in_both
@both_sides
def test_the_estimators_of_the_kl(x, dtype):
    """log r is −x; π below the reference is x < 0."""
    infinite = math.isinf(x)
    found = of_one(kl.k3, x, dtype)
    k3 = bounded(-x) - 1 + nats(x)
    k3_slope = 0.0 if infinite else 1 - slope(-x)
    assert found == (approx(k3, dtype), approx(k3_slope, dtype))
    assert of_one(kl.k1, x, dtype) == (approx(nats(x), dtype), 0.0 if infinite else 1.0)
    assert of_one(kl.k2, x, dtype) == (approx(nats(x) ** 2 / 2, dtype), approx(0.0 if infinite else x, dtype))


@in_both
@both_sides
def test_the_weighted_estimator_pulls_by_log_r_however_large_r_is(x, dtype):
    """Its value is π_ref/π_old − ρ (log r + 1), and its gradient −ρ log r: in neither r stands alone."""
    value, gradient = of_one(lambda lp, ref: kl.weighted_k3(lp, ref, ref), x, dtype)
    assert value == approx(1 + bounded(x) * (nats(x) - 1), dtype)
    assert gradient == approx(0.0 if math.isinf(x) else slope(x) * (x - 1) + bounded(x), dtype)
    if not math.isinf(x):
        value, gradient = of_one(lambda lp, ref: kl.weighted_k3(lp, lp.detach(), ref), x, dtype)
        assert value == approx(bounded(-x) + x - 1, dtype)
        # Up to the bound it is the difference of two numbers of the size of r.
        rounded = 2 * torch.finfo(dtype).eps * slope(-x) if -x <= 20 else 0.0
        assert gradient == pytest.approx(x, rel=1e-5, abs=1e-7 + rounded)


@in_both
@both_sides
@pytest.mark.parametrize("advantage", [2.0, -2.0, 0.0])
def test_the_surrogates(x, dtype, advantage):
    rho, rho_slope = bounded(x), slope(x)
    a = torch.tensor([[advantage]], dtype=dtype)
    here = torch.ones(1, 1, dtype=torch.bool)
    clipped = -min(rho * advantage, max(0.8, min(rho, 1.2)) * advantage)
    live = rho <= 1.2 if advantage >= 0 else rho >= 0.8
    clipped_slope = -rho_slope * advantage if live else 0.0
    for term in (
        lambda lp, old: policy.clipped_surrogate(lp, old, a, **BOUNDS)[0],
        lambda lp, old: policy.sequence_surrogate(lp, old, a, here, **BOUNDS)[0],
    ):
        assert of_one(term, x, dtype) == (approx(clipped, dtype), approx(clipped_slope, dtype))
    penalised = of_one(lambda lp, old: policy.kl_penalised_surrogate(lp, old, a, beta=0.5), x, dtype)
    assert penalised[0] == approx(-rho * advantage + 0.5 * (rho - 1 - nats(x)), dtype)
    expected = 0.0 if math.isinf(x) else -rho_slope * advantage + 0.5 * (rho_slope - 1)
    assert penalised[1] == approx(expected, dtype)
    dual = of_one(lambda lp, old: policy.clipped_surrogate(lp, old, a, **BOUNDS, dual_clip=3.0)[0], x, dtype)
    cut = advantage < 0 and rho > 3
    assert dual == (approx(6.0, dtype), 0.0) if cut else (approx(clipped, dtype), approx(clipped_slope, dtype))


@in_both
@pytest.mark.parametrize("x", [x for y in NATS for x in (y, -y) if not math.isinf(y)])
def test_what_has_a_bound_of_its_own(x, dtype):
    """GSPO-token's and CISPO's gradients, truncated importance weights, and DPO, which is linear far out."""
    a = torch.tensor([[-2.0]], dtype=dtype)
    here = torch.ones(1, 1, dtype=torch.bool)
    token = of_one(lambda lp, old: policy.sequence_token_surrogate(lp, old, a, here, **BOUNDS)[0], x, dtype)
    rho = bounded(x)
    # The ratio's own slope, as the paper has it: the token's is π / sg[π].
    assert token == (approx(2 * max(rho, 0.8), dtype), approx(2 * rho if rho >= 0.8 else 0.0, dtype))
    cispo = of_one(lambda lp, old: policy.clipped_weight_surrogate(lp, old, a, eps_high=0.2)[0], x, dtype)
    assert cispo[1] == approx(2 * min(rho, 1.2), dtype)
    weights = policy.truncated_importance_weights(torch.tensor([[x]], dtype=dtype), torch.zeros(1, 1), cap=2.0)
    assert weights.item() == approx(min(rho, 2.0), dtype)
    assert of_one(lambda lp, ref: dpo(lp - ref, torch.zeros_like(ref), beta=0.1), x, dtype) == (
        approx(math.log1p(math.exp(-0.1 * x)) if x > -1000 else 100.0, dtype),
        approx(-0.1 / (1 + math.exp(0.1 * x)), dtype),
    )


def test_a_token_that_is_masked_far_away_does_not_move_its_sequence():
    logprobs, old = torch.tensor([[-1.0, -5000.0]]), torch.tensor([[-1.5, 0.0]])
    mask = torch.tensor([[True, False]])
    assert policy.sequence_ratio(logprobs, old, mask).item() == pytest.approx(math.exp(0.5))


@in_both
def test_up_to_the_bound_every_bit_is_as_without_it(dtype):
    """Value and gradient of what is used, against the formulas as they stand."""
    generator = torch.Generator().manual_seed(0)
    shape = (40, 101)
    for size in (1e-6, 1e-2, 1.0, 6.0):
        # Differences of up to 20 nats, and exact zeros.
        ours = -3 * torch.rand(shape, generator=generator, dtype=dtype)
        far = (size * torch.randn(shape, generator=generator, dtype=dtype)).clamp(-16.9, 16.9)
        other = ours + far * (torch.rand(shape, generator=generator) < 0.9)
        advantages = torch.randn(shape, generator=generator, dtype=dtype)
        mask = torch.rand(shape, generator=generator) < 0.8

        def plain_k3(lp, ref):
            return (ref - lp).expm1() - (ref - lp)

        def plain_clip(lp, old, a=advantages):
            rho = (lp - old).exp()
            return -(rho * a).minimum(rho.clamp(0.8, 1.2) * a)

        def plain_sequence(lp, old, a=advantages, m=mask):
            mean_E = (lp - old).where(m, torch.zeros_like(lp)).sum(dim=1) / m.sum(dim=1).clamp(min=1)
            a_E = a.where(m, torch.zeros_like(a)).sum(dim=1) / m.sum(dim=1).clamp(min=1)
            s_E = mean_E.exp()
            return -(s_E * a_E).minimum(s_E.clamp(0.8, 1.2) * a_E)[:, None] * m

        pairs = [
            (kl.k1, lambda lp, ref: lp - ref),
            (kl.k2, lambda lp, ref: 0.5 * (ref - lp).square()),
            (kl.k3, plain_k3),
            (lambda lp, ref: kl.weighted_k3(lp, ref, ref), lambda lp, ref: (lp - ref).exp() * plain_k3(lp, ref)),
            (lambda lp, old, a=advantages: policy.clipped_surrogate(lp, old, a, **BOUNDS)[0], plain_clip),
            (
                lambda lp, old, a=advantages: policy.kl_penalised_surrogate(lp, old, a, beta=0.7),
                lambda lp, old, a=advantages: -(lp - old).exp() * a + 0.7 * plain_k3(old, lp),
            ),
            (
                lambda lp, old, a=advantages, m=mask: policy.sequence_surrogate(lp, old, a, m, **BOUNDS)[0],
                plain_sequence,
            ),
        ]
        for fast, plain in pairs:
            values, gradients = [], []
            for function in (fast, plain):
                leaf = ours.clone().requires_grad_()
                terms = function(leaf, other)
                (terms * advantages).sum().backward()
                values.append(terms.detach())
                gradients.append(leaf.grad)
            assert torch.equal(*values)
            assert torch.equal(*gradients)


def test_the_tangent_meets_the_curve():
    below, at, above = (torch.tensor(x, dtype=torch.float64) for x in (20 - 1e-9, 20.0, 20 + 1e-9))
    for function in (ratio, ratio_less_1):
        assert function(below) < function(at) < function(above)
        assert (function(above) - function(below)).item() == pytest.approx(2e-9 * math.exp(20), rel=1e-4)
    assert log_ratio(torch.tensor(-3.0), torch.tensor(-5.0)).item() == 2.0


def test_what_is_no_number_is_not_made_one():
    """Neither in value nor in gradient: the optimizer step that follows has to refuse it."""
    a, here = torch.tensor([[-2.0]]), torch.ones(1, 1, dtype=torch.bool)
    for term in (
        kl.k2,
        kl.k3,
        lambda lp, ref: kl.weighted_k3(lp, ref, ref),
        lambda lp, old: policy.clipped_surrogate(lp, old, a, **BOUNDS)[0],
        lambda lp, old: policy.clipped_surrogate(lp, old, -a, **BOUNDS)[0],
        lambda lp, old: policy.kl_penalised_surrogate(lp, old, a, beta=0.5),
        lambda lp, old: policy.sequence_surrogate(lp, old, a, here, **BOUNDS)[0],
    ):
        for ours, other in ((math.nan, -1.0), (-1.0, math.nan)):
            logprob = torch.tensor([[ours]], requires_grad=True)
            found = term(logprob, torch.tensor([[other]]))
            found.sum().backward()
            assert found.isnan().all()
            assert logprob.grad.isnan().all()


STEPS: dict[str, Method] = {
    "k3": GRPO(group_size=2, beta=0.04),
    "weighted k3": GRPO(group_size=2, beta=0.04, kl=KL(estimator="weighted_k3")),
    "k2": GRPO(group_size=2, beta=0.04, kl=KL(estimator="k2")),
    "clip": PPO(beta=0.0),
    "kl form": PPO(beta=0.0, form="kl"),
    "sequence": GSPO(group_size=2),
}


@pytest.mark.parametrize("far", [50.0, 100.0, 1000.0])
@pytest.mark.parametrize("name", STEPS)
def test_one_token_does_not_end_a_run(name, far):
    """It is far below the reference, which pulls it up; or far above π_old with A = −1, which pushes it down."""
    method = STEPS[name]
    model = tiny_policy()
    batch = ragged_batch(model.config.vocab_size)
    with torch.no_grad():
        now_ET = torch.stack(own_logprobs(model.model, batch, 1.0)).masked_fill(~batch.mask_ET, 0.0)
    token = tuple(batch.mask_ET.nonzero()[3].tolist())
    away_ET = torch.zeros_like(now_ET)
    away_ET[token] = far
    batch = with_given(
        batch,
        ref_logprobs=now_ET + away_ET,
        old_logprobs=now_ET if method.beta else now_ET - away_ET,
        advantages=(away_ET * 0 if method.beta else -(away_ET > 0).float()),
        coefficients={"beta": method.beta, "old_kl": 1.0},
    )
    stats = TokenStats()
    learner = learner_of(method, model, MicrobatchLimits(60, True), max_grad_norm=1.0)
    learner.optimizers["policy"] = torch.optim.SGD(model.parameters(), lr=1.0)
    part = learner.forward_backward(method.objectives()[0], batch, stats.add)
    done = learner.step("policy", [part], 1e-2)
    assert done.applied
    assert math.isfinite(done.loss)
    assert math.isfinite(done.grad_norm)
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(math.isfinite(value) for value in stats.metrics().values())
    with torch.no_grad():
        after = torch.stack(own_logprobs(model.model, batch, 1.0))[token]
    assert (after > now_ET[token]) == (method.beta > 0)
    assert after != now_ET[token]


def test_the_figures_of_a_step_stay_finite():
    now = torch.tensor([[-1.0, -900.0]])
    batch = make_batch(
        prefixes=(torch.tensor([1]),),
        group_E=torch.tensor([0]),
        tokens_ET=torch.zeros(1, 2, dtype=torch.long),
        mask_ET=torch.ones(1, 2, dtype=torch.bool),
        old_logprobs=now - 500.0,
        ref_logprobs=torch.tensor([[-1.0, 0.0]]),
    )
    stats = TokenStats()
    stats.add(batch, Outputs(logprobs=now), LossTerms(now))
    found = stats.metrics()
    assert found["ratio/mean"] == pytest.approx(math.exp(20) * 481)
    assert found["kl"] == pytest.approx((math.exp(20) * 881 - 901) / 2)
