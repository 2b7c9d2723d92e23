from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionModel, SiglipVisionModel

from distilvl.students.positions import fit_positions, resample_grid


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 2))
def test_constant_grids_stay_constant_and_extra_rows_stay(old: int, new: int, extra: int) -> None:
    if extra and (old**2 + extra) >= (old + 1) ** 2:
        extra = 0
    positions = torch.cat([torch.full((1, extra, 4), 7.0), torch.full((1, old**2, 4), 2.0)], dim=1)
    out = resample_grid(positions, new)
    assert out.shape == (1, extra + new**2, 4)
    assert (out[:, :extra] == 7).all()
    torch.testing.assert_close(out[:, extra:], torch.full((1, new**2, 4), 2.0))


def test_orientation_is_kept() -> None:
    rows = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1)
    out = resample_grid(rows, 2).view(2, 2)
    assert (out[0] < out[1]).all()
    torch.testing.assert_close(out[:, 0], out[:, 1])


def test_same_size_is_the_same() -> None:
    positions = torch.randn(1, 17, 3)
    assert torch.equal(resample_grid(positions, 4), positions)


@pytest.mark.parametrize(("kind", "extra"), [(CLIPVisionModel, 1), (SiglipVisionModel, 0)])
def test_tables_of_positions_are_resampled_too(kind: type[CLIPVisionModel | SiglipVisionModel], extra: int) -> None:
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = kind(kind.config_class(image_size=32, patch_size=8, **size)).eval()
    table = next(module for module in model.modules() if hasattr(module, "position_embedding"))
    before = table.position_embedding.weight.detach().clone()
    fitted = fit_positions(model, 48)
    after = next(module for module in fitted.modules() if hasattr(module, "position_embedding"))
    after = after.position_embedding.weight
    assert after.requires_grad
    torch.testing.assert_close(after.detach(), resample_grid(before[None], 6)[0])
    assert torch.equal(after[:extra], before[:extra])
    assert model(pixel_values=torch.zeros(1, 3, 48, 48)).last_hidden_state.shape == (1, extra + 36, 8)
    assert model.config.image_size == 48
