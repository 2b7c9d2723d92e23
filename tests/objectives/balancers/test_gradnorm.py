from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers import GradNormBalancer

NAMES = ("cd", "fd", "hnd")


def step(balancer, values, slopes):
    """One call with losses of these values, whose gradients have these norms."""
    z = torch.zeros(len(values), dtype=torch.float64, requires_grad=True)
    losses = {name: v + g * z[k] for k, (name, v, g) in enumerate(zip(NAMES, values, slopes, strict=True))}
    return [m.item() for m in balancer(losses, (z,)).values()]


def by_hand(history, slopes, alpha, lr):
    """Algorithm 1 with the bounded step, no bound on ratios; losses well above the floor."""
    w, first, out = [1.0] * 3, history[0], []
    for now in history:
        out.append(list(w))
        ratio = [a / b for a, b in zip(now, first, strict=True)]
        pull = [(x / (sum(ratio) / 3)) ** alpha for x in ratio]
        G = [a * b for a, b in zip(w, slopes, strict=True)]
        target = [sum(G) / 3 * p / (sum(pull) / 3) for p in pull]
        w = [x * math.exp(min(lr, max(-lr, math.log(t / g)))) for x, t, g in zip(w, target, G, strict=True)]
        w = [3 * x / sum(w) for x in w]
    return out


@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("lr", [0.1, 5.0])
def test_matches_the_algorithm_by_hand(alpha, lr):
    history = [(3.0, 0.2, 200.0), (2.0, 0.15, 190.0), (2.2, 0.16, 20.0), (1.0, 0.16, 60.0)]
    slopes = (1.0, 0.01, 30.0)
    balancer = GradNormBalancer(alpha, lr)
    for values, expected in zip(history, by_hand(history, slopes, alpha, lr), strict=True):
        assert step(balancer, values, slopes) == pytest.approx(expected, rel=1e-12)


def test_the_step_follows_the_sign_of_the_published_gradient():
    balancer = GradNormBalancer(lr=1e-3)
    values, slopes = (1.0, 1.0, 1.0), torch.tensor([1.0, 0.01, 30.0], dtype=torch.float64)
    step(balancer, values, slopes.tolist())
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (w * slopes - (w * slopes).mean().detach()).abs().sum().backward()
    moves = [math.copysign(1, math.log(weight)) for weight in balancer.state["weight"].values()]
    assert balancer.state["weight"]["hnd"] < 1 < balancer.state["weight"]["cd"]
    assert moves == (-w.grad).sign().tolist()


@given(slopes=st.tuples(*[st.floats(0.1, 10)] * 3), left=st.tuples(*[st.floats(0.1, 1)] * 3))
def test_settles_where_norms_are_proportional_to_the_powered_rates(slopes, left):
    balancer = GradNormBalancer(alpha=1.5, lr=0.5)
    step(balancer, (1.0, 1.0, 1.0), slopes)
    for _ in range(60):
        weights = step(balancer, left, slopes)
    quotients = [w * g / x**1.5 for w, g, x in zip(weights, slopes, left, strict=True)]
    assert quotients == pytest.approx([quotients[0]] * 3, rel=1e-6)
    assert sum(weights) == pytest.approx(3)


values = st.one_of(st.just(0.0), st.floats(0, 1e6))
norms = st.one_of(st.just(0.0), st.floats(0, 1e12))


@given(history=st.lists(st.tuples(st.tuples(*[values] * 3), st.tuples(*[norms] * 3)), min_size=1, max_size=20))
def test_weights_are_bounded_for_any_losses_and_gradients(history):
    balancer = GradNormBalancer(lr=3.0)
    for losses, slopes in history:
        weights = step(balancer, losses, slopes)
        assert all(math.isfinite(w) for w in weights)
        assert sum(weights) == pytest.approx(3)
        assert max(weights) <= min(weights) * 1e5 * (1 + 1e-6)
        assert all(0 <= rate <= 3 + 1e-9 for rate in balancer.report["rate"].values())


def test_a_loss_without_gradient_keeps_its_share_and_moves_no_other():
    balancer = GradNormBalancer(alpha=0.0)
    for _ in range(50):
        weights = step(balancer, (1.0, 1.0, 0.0), (2.0, 2.0, 0.0))
    assert weights == [1, 1, 1]


def test_a_first_loss_of_zero_waits_for_its_first_value():
    balancer = GradNormBalancer()
    step(balancer, (1.0, 1.0, 0.0), (1.0, 1.0, 0.0))
    assert balancer.report["rate"] == dict.fromkeys(NAMES, 1.0)
    step(balancer, (1.0, 1.0, 50.0), (1.0, 1.0, 1.0))
    assert balancer.report["rate"] == dict.fromkeys(NAMES, 1.0)
    step(balancer, (1.0, 1.0, 25.0), (1.0, 1.0, 1.0))
    assert balancer.report["rate"]["hnd"] == pytest.approx(0.5 / (2.5 / 3))


def test_without_features_it_says_what_it_needs():
    balancer = GradNormBalancer()
    with pytest.raises(DistilvlError, match="output features"):
        balancer({"cd": torch.tensor(1.0, requires_grad=True)})
    assert balancer.state_dict() == {}


def test_the_later_backward_gives_the_weighted_gradient():
    z = torch.tensor([2.0, 3.0], requires_grad=True)
    losses = {"cd": z[0] ** 2, "fd": 5 * z[1]}
    balancer = GradNormBalancer(lr=0.3)
    balancer(losses, (z,))
    multipliers = balancer(losses, (z,))
    sum(multipliers[name] * losses[name] for name in losses).backward()
    assert z.grad.tolist() == pytest.approx([4 * multipliers["cd"].item(), 5 * multipliers["fd"].item()])
    assert multipliers["cd"] > 1 > multipliers["fd"]
