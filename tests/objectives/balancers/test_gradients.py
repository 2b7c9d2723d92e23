from __future__ import annotations

import math

import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers.gradnorm import gradient_norms


def test_matches_the_norm_by_hand_over_both_features():
    a = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    losses = {"both": (a**2).sum() + 4 * b.sum(), "one": 3 * a[0, 0], "none": (b * 0).sum()}
    expected = {"both": math.sqrt(2**2 + 4**2 + 4**2), "one": 3.0, "none": 0.0}
    assert gradient_norms(losses, (a, b)) == pytest.approx(expected, rel=1e-12)


def test_the_graph_and_every_grad_stay_as_they_were():
    torch.manual_seed(0)
    tower, x = torch.nn.Linear(3, 2), torch.randn(4, 3)

    def gradient(measure):
        tower.zero_grad(set_to_none=True)
        z = tower(x)
        losses = {"fd": z.abs().mean(), "sd": (z**2).sum()}
        if measure:
            gradient_norms(losses, (z,))
            assert all(p.grad is None for p in tower.parameters())
        (losses["fd"] + losses["sd"]).backward()
        return tower.weight.grad.clone()

    assert torch.equal(gradient(measure=True), gradient(measure=False))


def test_a_constant_loss_and_a_frozen_tower_count_as_nothing():
    z_image, z_text = torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)
    losses = {"fd": (z_image * z_text).sum(), "cd": torch.tensor(7.0)}
    assert gradient_norms(losses, (z_image, z_text)) == pytest.approx({"fd": math.sqrt(6), "cd": 0.0})


def test_views_keep_clear_of_hooks_on_what_they_view():
    def refuse(_):
        raise RuntimeError("only my own backward")

    z = torch.ones(2, 3, requires_grad=True) * 1.0
    z.register_hook(refuse)
    view = z.view_as(z)
    assert gradient_norms({"fd": view.sum()}, (view,))["fd"] == pytest.approx(math.sqrt(6))
    with pytest.raises(RuntimeError, match="only my own"):
        gradient_norms({"fd": view.sum()}, (z,))


@pytest.mark.parametrize("shared", [(), (torch.ones(2),)])
def test_features_without_a_graph_are_an_error_that_says_what_to_pass(shared):
    with pytest.raises(DistilvlError, match=r"output features.*z_image, z_text"):
        gradient_norms({"cd": torch.tensor(1.0)}, shared)


def test_a_gradient_that_is_not_finite_is_named():
    z = torch.zeros(2, requires_grad=True)
    with pytest.raises(DistilvlError, match=r"gradient of loss 'fd' has norm (inf|nan)"):
        gradient_norms({"fd": z.sum().sqrt()}, (z,))


def test_large_bfloat16_gradients_are_measured_in_double_precision():
    z = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    assert gradient_norms({"hnd": (z * 1e30).sum()}, (z,))["hnd"] == pytest.approx(math.sqrt(2) * 1e30, rel=0.01)
