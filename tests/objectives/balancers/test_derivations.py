"""What docs/balancers.md derives, checked on gradients."""

from __future__ import annotations

import math

import pytest
import torch

from distilvl.objectives.balancers import (
    DWABalancer,
    GradNormBalancer,
    OfficialBalancer,
    PaperBalancer,
    StaticBalancer,
    UncertaintyBalancer,
)


def problem(seed=0):
    """Four losses of very different sizes on two shared activations, with their graph."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 5, dtype=torch.float64, generator=random, requires_grad=True)
    u = torch.randn(2, 5, dtype=torch.float64, generator=random)
    losses = {
        "cd": -torch.log_softmax(z @ u.T / 0.5, dim=1).diagonal().mean(),
        "fd": 0.1 * (z - u).abs().mean(),
        "sd": 1 - torch.cosine_similarity(z, u).mean(),
        "hnd": 30 * (1 + z[0] @ u[1] - z[0] @ u[0]).square(),
    }
    return z, losses


def gradient(scalar, z):
    return torch.autograd.grad(scalar, z, retain_graph=True)[0]


def followed(balancer, z, losses):
    """The gradient of the step's objective; it goes into the student."""
    multipliers = balancer(losses, (z,))
    return gradient(sum(multipliers[name] * loss for name, loss in losses.items()), z)


def log_product(losses):
    return sum(loss.log() for loss in losses.values())


def cosine(a, b):
    return torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def test_official_follows_the_product():
    balancer = OfficialBalancer(0.05)
    balancer(problem(1)[1])
    z, losses = problem()
    largest = max(losses.values()).detach()
    expected = 10 / 4 * largest * gradient(log_product(losses), z)
    torch.testing.assert_close(followed(balancer, z, losses), expected)
    product = torch.stack(list(losses.values())).prod()
    assert cosine(expected, gradient(product, z)) == pytest.approx(1)


def test_paper_follows_a_product_with_the_weights_as_exponents():
    balancer = PaperBalancer(0.5)
    balancer(problem(1)[1])
    z, losses = problem()
    got = followed(balancer, z, losses)
    w = balancer.report["weight"]
    weighted = sum(w[name] * loss.log() for name, loss in losses.items())
    torch.testing.assert_close(got, max(losses.values()).detach() * gradient(weighted, z))
    assert max(w.values()) > 2 * min(w.values())


def test_paper_turns_into_official_for_large_tau_and_into_one_loss_for_small():
    z, losses = problem()
    before = {name: loss.detach() / (1.01 if name == "sd" else 1.0) for name, loss in losses.items()}
    got = {}
    for tau in (1e-4, 1e6):
        balancer = PaperBalancer(tau)
        balancer(before)
        got[tau] = followed(balancer, z, losses)
    assert cosine(got[1e6], gradient(log_product(losses), z)) == pytest.approx(1, abs=1e-9)
    assert cosine(got[1e-4], gradient(losses["sd"], z)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("tau", "share"), [(1.0, 0.269), (0.2, 0.355), (0.05, 0.711), (0.02, 0.980)])
def test_share_of_the_loss_that_rose_by_a_tenth(tau, share):
    balancer = PaperBalancer(tau)
    balancer({name: torch.tensor(1.0) for name in ("cd", "fd", "sd", "hnd")})
    balancer({"cd": torch.tensor(1.0), "fd": torch.tensor(1.0), "sd": torch.tensor(1.0), "hnd": torch.tensor(1.1)})
    assert balancer.report["weight"]["hnd"] / 4 == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize(("tau", "largest", "noisiest"), [(1.0, 0.27, 0.25), (0.05, 0.62, 0.34)])
def test_what_noise_alone_does_to_the_weights(tau, largest, noisiest):
    """Losses that go nowhere, with ratios as noisy as those of a run on `scenes`."""
    spread = torch.tensor([0.07, 0.025, 0.05, 0.14], dtype=torch.float64) / math.sqrt(2)
    random = torch.Generator().manual_seed(0)
    balancer, shares = PaperBalancer(tau), []
    for values in 1 + spread * torch.randn(1000, 4, dtype=torch.float64, generator=random):
        balancer(dict(zip(("cd", "fd", "sd", "hnd"), values, strict=True)))
        shares.append([w / 4 for w in balancer.report["weight"].values()])
    assert sum(max(share) for share in shares) / 1000 == pytest.approx(largest, abs=0.03)
    assert sum(share[3] for share in shares) / 1000 == pytest.approx(noisiest, abs=0.03)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_dwa_cannot_outweigh_by_more_than_exp_of_one_over_tau_while_losses_fall(tau):
    balancer = DWABalancer(tau)
    for hnd, fd in ((300.0, 0.2), (0.001, 0.2)):
        balancer({"fd": torch.tensor(fd), "hnd": torch.tensor(hnd)})
        balancer.end_epoch()
    balancer({"fd": torch.tensor(0.2), "hnd": torch.tensor(0.001)})
    w = balancer.report["weight"]
    assert w["fd"] / w["hnd"] == pytest.approx(math.exp(1 / tau), rel=1e-4)


def test_dwa_and_static_follow_a_plain_sum():
    z, losses = problem()
    torch.testing.assert_close(followed(DWABalancer(), z, losses), gradient(sum(losses.values()), z))
    weighted = losses["cd"] + 20 * losses["fd"] + losses["sd"] + 0.1 * losses["hnd"]
    torch.testing.assert_close(followed(StaticBalancer({"fd": 20, "hnd": 0.1}), z, losses), gradient(weighted, z))


def test_uncertainty_ends_in_the_product():
    z, losses = problem()
    balancer = UncertaintyBalancer()
    first = followed(balancer, z, losses)
    for _ in range(400):
        last = followed(balancer, z, losses)
    torch.testing.assert_close(last, gradient(log_product(losses), z) / 2)
    torch.testing.assert_close(first, gradient(sum(losses.values()), z) / 2)
    assert cosine(first, last) < 0.9


def test_minimum_over_the_variance_is_half_the_log_of_the_loss():
    for loss in (0.02, 1.0, 300.0):
        s = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
        least = (loss * (-s).exp() / 2 + s / 2).min().item()
        assert least == pytest.approx((1 + math.log(loss)) / 2, abs=1e-6)


def test_gradnorm_ends_in_equal_gradients():
    z, losses = problem()
    balancer = GradNormBalancer()
    for _ in range(300):
        got = followed(balancer, z, losses)
    w = balancer.report["weight"]
    norms = [w[name] * gradient(loss, z).norm().item() for name, loss in losses.items()]
    assert norms == pytest.approx([norms[0]] * 4)
    units = sum(gradient(loss, z) / gradient(loss, z).norm() for loss in losses.values())
    assert cosine(got, units) == pytest.approx(1)
    assert cosine(got, gradient(log_product(losses), z)) < 0.999


def test_a_hinge_that_vanishes_pulls_without_limit_on_the_product_but_not_on_gradnorm():
    """One active triplet: the loss goes to 0, its gradient does not."""
    pulls = []
    for gap in (1.0, 1e-3):
        z = torch.tensor([gap, 1.0], dtype=torch.float64, requires_grad=True)
        losses = {"hnd": z[0].relu(), "sd": z[1] ** 2}
        official, gradnorm = OfficialBalancer(), GradNormBalancer(alpha=0.0)
        official(losses)
        for _ in range(100):
            by_norm = followed(gradnorm, z, losses)
        by_product = followed(official, z, losses)
        pulls.append((abs(by_product[0] / by_product[1]).item(), abs(by_norm[0] / by_norm[1]).item()))
    assert pulls[0] == pytest.approx((0.5, 1.0))
    assert pulls[1] == pytest.approx((500.0, 1.0))
