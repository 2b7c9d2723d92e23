"""The quick view of a learning top: float32 for depthwise convolutions, normalisations folded into convolutions."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from distilvl.students.quick import folded, quick


def test_depthwise_convolutions_have_the_gradients_of_float32_under_autocast() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 6, 3, groups=6)
    x, found = torch.randn(4, 6, 8, 8), []
    for module, enabled in ((convolution, False), (quick(nn.Sequential(convolution)), True)):
        convolution.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            module(x).square().sum().backward()
        assert convolution.weight.grad is not None
        found.append(convolution.weight.grad.clone())
    torch.testing.assert_close(found[0], found[1])
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert quick(nn.Sequential(convolution))(x).dtype == torch.bfloat16


class Block(nn.Module):
    """A convolution and its normalisation, an activation, a depthwise convolution with one, and a skip connection."""

    def __init__(self, bias: bool = False, skips_normalisation: bool = False) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(4, 6, 1, bias=bias), nn.BatchNorm2d(6)
        self.depthwise, self.depthwise_norm = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.project, self.project_norm = nn.Conv2d(6, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4)
        self.skips_normalisation = skips_normalisation
        torch.manual_seed(1)
        for norm in (self.norm, self.depthwise_norm, self.project_norm):
            for values in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(values)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        made = self.expand(x)
        y = self.norm(made).relu()
        y = self.depthwise_norm(self.depthwise(y)).relu()
        y = self.project_norm(self.project(y)) + x
        return torch.cat([y, made], dim=1) if self.skips_normalisation else y


def _block(**how: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(**how), nn.ReLU()).double().eval()


@pytest.mark.parametrize("bias", [False, True])
def test_folded_normalisations_have_the_same_outputs_and_gradients(bias: bool) -> None:
    block = _block(bias=bias)
    plain, x = deepcopy(block), torch.randn(3, 4, 8, 8, dtype=torch.float64)
    view = folded(block, lambda: block(x))
    out, expected = view(x), plain(x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for found in (out, expected):
        found.square().sum().backward()
    for (name, weight), other in zip(block.named_parameters(), plain.parameters(), strict=True):
        assert weight.grad is not None, name
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_weights_are_shared_and_only_normalisations_behind_learning_convolutions_go() -> None:
    block, x = _block(), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    block[0].project.weight.requires_grad_(False)
    view = folded(block, lambda: block(x))
    assert [one.data_ptr() for one in view.parameters()] == [one.data_ptr() for one in block.parameters()]
    calls: list[nn.Module] = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        whole = nn.BatchNorm2d.forward
        patch.setattr(nn.BatchNorm2d, "forward", lambda norm, given: calls.append(norm) or whole(norm, given))
        torch.testing.assert_close(view(x), block(x))
    own, others = calls[: len(calls) - 3], calls[-3:]
    assert others == [block[0].norm, block[0].depthwise_norm, block[0].project_norm]
    assert len(own) == 2, "the first is folded; a depthwise and a resting convolution keep theirs"


def test_what_is_read_elsewhere_too_changes_so_that_who_folds_has_to_compare() -> None:
    block, x = _block(skips_normalisation=True), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    view = folded(block, lambda: block(x))
    assert not torch.allclose(view(x), block(x))
