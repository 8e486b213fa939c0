import math
import random

import pytest
import torch

from oracles import preference as oracle
from oracles import scalars
from oracles.ragged import padded, ragged
from sharpen.functional.losses.preference import bradley_terry, dpo, ranked_groups, step_loss

NAN = math.nan


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


DPO_SETTINGS = [
    ({"beta": 0.1}, lambda c, r: oracle.dpo(c, r, 0.1)),
    ({"beta": 2.0}, lambda c, r: oracle.dpo(c, r, 2.0)),
    ({"beta": 0.5, "label_smoothing": 0.2}, lambda c, r: oracle.dpo(c, r, 0.5, 0.2)),
    ({"beta": 0.1, "form": "ipo"}, lambda c, r: oracle.ipo(c, r, 0.1)),
    ({"beta": 1.5, "form": "ipo"}, lambda c, r: oracle.ipo(c, r, 1.5)),
]


@pytest.mark.parametrize(("settings", "slow"), DPO_SETTINGS)
def test_dpo_against_the_plain_loop(settings, slow):
    """From log-ratios summed over ragged completions to the gradient in each of their tokens."""
    for seed in range(10):
        batch = ragged(seed)
        pairs = len(batch.policy) // 2
        weights = [random.Random(seed + i).gauss(0, 1) for i in range(pairs)]
        rows, references = batch.policy[: 2 * pairs], batch.reference[: 2 * pairs]

        logprobs = padded(rows, fill=0.0).requires_grad_()
        ratios = (logprobs - padded(references, fill=0.0)).sum(1)
        loss = dpo(ratios[:pairs], ratios[pairs:], **settings)
        (tensor(weights) * loss).sum().backward()

        leaves = scalars.leaves(rows)
        plain_ratios = [sum(a - b for a, b in zip(x, y, strict=True)) for x, y in zip(leaves, references, strict=True)]
        plain = [slow(plain_ratios[i], plain_ratios[pairs + i]) for i in range(pairs)]
        assert loss.tolist() == pytest.approx([x.item() for x in plain], rel=1e-6)
        gradient = scalars.gradient(sum(w * x for w, x in zip(weights, plain, strict=True)), leaves)
        in_tokens = padded([[1.0] * len(row) for row in rows], fill=0.0)
        torch.testing.assert_close(logprobs.grad * in_tokens, padded(gradient, fill=0.0), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 3.0])
def test_dpo_at_the_reference_is_log_2_with_gradient_half_beta(beta):
    chosen, rejected = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = dpo(chosen, rejected, beta=beta)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert chosen.grad.tolist() == pytest.approx([-beta / 2] * 2)
    assert rejected.grad.tolist() == pytest.approx([beta / 2] * 2)


def test_a_smoothed_label_has_its_minimum_where_the_odds_are_its_own():
    """σ(βh) = 1 − ε; the hard label has no minimum, ipo's lies at h = 1/(2β)."""
    best = tensor([math.log(0.9 / 0.1) / 0.5]).requires_grad_()
    dpo(best, tensor([0.0]), beta=0.5, label_smoothing=0.1).sum().backward()
    assert best.grad.item() == pytest.approx(0.0, abs=1e-12)
    best = tensor([1 / (2 * 0.1)]).requires_grad_()
    loss = dpo(best, tensor([0.0]), beta=0.1, form="ipo")
    loss.sum().backward()
    assert loss.item() == best.grad.item() == 0.0


def test_a_very_wrong_pair_keeps_a_finite_loss_and_gradient():
    chosen = torch.tensor([-5000.0], requires_grad=True)
    loss = dpo(chosen, torch.tensor([5000.0]), beta=0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1000.0)
    assert chosen.grad.item() == pytest.approx(-0.1)


def test_ipo_has_no_label_smoothing():
    with pytest.raises(ValueError, match="label_smoothing"):
        dpo(tensor([0.0]), tensor([0.0]), beta=0.1, label_smoothing=0.1, form="ipo")


def rankings(seed):
    """Interleaved groups of 1 to 6 with ties and missing grades."""
    rng = random.Random(seed)
    members = [(group, rng.choice([0, 1, 2, 3.5, NAN])) for group in range(5) for _ in range(rng.randint(1, 6))]
    rng.shuffle(members)
    return [rng.gauss(0, 2) for _ in members], [float(grade) for _, grade in members], [group for group, _ in members]


@pytest.mark.parametrize("options", [{}, {"margin": True}, {"noise": 0.1}, {"margin": True, "noise": 0.3}])
def test_rankings_against_the_plain_loop(options):
    for seed in range(20):
        scores, grades, groups = rankings(seed)
        rng = random.Random(f"weights {seed}")
        weights = [rng.gauss(0, 1) for _ in range(5)]

        fast_scores = tensor(scores).requires_grad_()
        group_E = torch.tensor(groups)
        terms = bradley_terry(fast_scores, tensor(grades), group_E, **options)
        (terms * tensor(weights)[group_E]).sum().backward()

        (leaves,) = scalars.leaves([scores])
        total, ranked = torch.tensor(0.0, dtype=torch.float64), []
        for group in range(5):
            members = [i for i in range(len(groups)) if groups[i] == group]
            loss = oracle.ranking([leaves[i] for i in members], [grades[i] for i in members], **options)
            ranked.append(loss is not None)
            found = terms[group_E == group].sum().item()
            assert found == pytest.approx(loss.item() if loss is not None else 0.0, rel=1e-6)
            total = total + (weights[group] * loss if loss is not None else 0.0)
        expected = scalars.gradient(total, [leaves])[0]
        assert fast_scores.grad.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert ranked_groups(tensor(grades), group_E).tolist() == ranked


def test_a_ranking_of_three_by_hand():
    """Scores 1, 0, −1 in the right order: (−log σ(1) − log σ(2) − log σ(1)) / 3, of which the winner has two."""
    minus_log_sigmoid = [math.log(1 + math.exp(-x)) for x in (1, 2)]
    terms = bradley_terry(tensor([1.0, 0.0, -1.0]), tensor([9.0, 5.0, 2.0]), torch.zeros(3, dtype=torch.long))
    assert terms.tolist() == pytest.approx([sum(minus_log_sigmoid) / 3, minus_log_sigmoid[0] / 3, 0.0])


def test_a_tie_is_dropped_from_the_pairs_and_from_their_number():
    """Grades 1, 1, 0: two pairs, not three."""
    terms = bradley_terry(tensor([0.0, 0.0, 0.0]), tensor([1.0, 1.0, 0.0]), torch.zeros(3, dtype=torch.long))
    assert terms.tolist() == pytest.approx([math.log(2) / 2, math.log(2) / 2, 0.0])


def test_a_margin_asks_for_more_and_noise_bounds_the_loss():
    pair = (tensor([1.0, 0.0]), tensor([3.0, 0.5]), torch.zeros(2, dtype=torch.long))
    assert bradley_terry(*pair, margin=True)[0].item() == pytest.approx(math.log(1 + math.exp(-(1.0 - 2.5))))
    far = (tensor([-500.0, 0.0]), *pair[1:])
    assert bradley_terry(*far, noise=0.1)[0].item() == pytest.approx(-math.log(0.05))
    right = (tensor([500.0, 0.0]), *pair[1:])
    assert bradley_terry(*right, noise=0.1)[0].item() == pytest.approx(-math.log(0.95))


def test_groups_without_a_pair_have_neither_loss_nor_gradient():
    scores = tensor([3.0, -2.0, 1.0, 4.0, 0.0]).requires_grad_()
    grades, groups = tensor([1.0, 1.0, 0.0, NAN, 2.0]), torch.tensor([0, 0, 1, 1, 2])
    terms = bradley_terry(scores, grades, groups, margin=True)
    terms.sum().backward()
    assert terms.tolist() == [0.0] * 5
    assert scores.grad.tolist() == [0.0] * 5
    assert ranked_groups(grades, groups).tolist() == [False] * 3


def test_steps_against_the_plain_loop():
    for seed in range(10):
        batch = ragged(seed)
        rng = random.Random(seed)
        labels = [[rng.choice([0.0, 1.0, rng.random(), NAN]) for _ in row] for row in batch.policy]

        def slow(scores, old, reference, labels, mask):
            # NaN is not equal to itself.
            return [oracle.step(s, y) if y == y else 0 * s for s, y in zip(scores, labels, strict=True)]

        scalars.assert_same_terms(batch, labels, lambda s, old, ref, y, mask: step_loss(s, y), slow, seed=seed)


def test_a_score_without_a_label_has_no_gradient_whatever_it_is():
    scores = torch.tensor([[0.0, math.inf, NAN, -300.0]], requires_grad=True)
    loss = step_loss(scores, torch.tensor([[0.25, NAN, NAN, 1.0]]))
    loss.sum().backward()
    assert loss.tolist()[0] == pytest.approx([math.log(2), 0.0, 0.0, 300.0])
    assert scores.grad.tolist()[0] == pytest.approx([0.25, 0.0, 0.0, -1.0])
