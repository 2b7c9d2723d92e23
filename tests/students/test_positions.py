from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BeitConfig,
    BeitModel,
    CLIPVisionModel,
    LevitConfig,
    LevitModel,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from distilvl.errors import DistilvlError
from distilvl.students.positions import fit_positions, resample_grid


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 2))
def test_constant_grids_stay_constant_and_extra_rows_stay(old: int, new: int, extra: int) -> None:
    positions = torch.cat([torch.full((1, extra, 4), 7.0), torch.full((1, old**2, 4), 2.0)], dim=1)
    out = resample_grid(positions, new, (old, old))
    assert out.shape == (1, extra + new**2, 4)
    assert (out[:, :extra] == 7).all()
    torch.testing.assert_close(out[:, extra:], torch.full((1, new**2, 4), 2.0))


def test_orientation_is_kept() -> None:
    rows = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1)
    out = resample_grid(rows, 2, (4, 4)).view(2, 2)
    assert (out[0] < out[1]).all()
    torch.testing.assert_close(out[:, 0], out[:, 1])


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
    torch.testing.assert_close(after.detach(), resample_grid(before[None], 6, (4, 4))[0])
    assert torch.equal(after[:extra], before[:extra])
    assert fitted(pixel_values=torch.zeros(1, 3, 48, 48)).last_hidden_state.shape == (1, extra + 36, 8)
    assert fitted.config.image_size == 48


SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def test_tables_of_relative_positions_are_resampled() -> None:
    """Smooth ones stay what they are of the distance, and the three rows to and from CLS are kept."""
    model = BeitModel(BeitConfig(image_size=32, patch_size=8, use_relative_position_bias=True, **SMALL)).eval()
    name = next(key for key in model.state_dict() if key.endswith("relative_position_bias_table"))
    table = model.state_dict()[name]
    table[:49] = torch.linspace(-3, 3, 7).repeat_interleave(7)[:, None]
    table[49:] = torch.tensor([7.0, 8.0, 9.0])[:, None]
    fitted = fit_positions(model, 64)
    after = fitted.state_dict()[name]
    assert len(after) == 15 * 15 + 3
    grid = after[:225, 0].view(15, 15)
    assert (grid.diff(dim=0) > 0).all()
    torch.testing.assert_close(grid[:, :1].expand(15, 15), grid)
    assert after[225:, 0].tolist() == [7, 8, 9]
    with torch.no_grad():
        assert fitted(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape == (1, 65, 8)


def test_a_grid_that_is_not_square_becomes_one() -> None:
    model = ViTModel(ViTConfig(image_size=[32, 48], patch_size=8, **SMALL)).eval()
    rows = torch.arange(4.0).repeat_interleave(6)[None, :, None].expand(1, 24, 8)
    model.embeddings.position_embeddings.data[:, 1:] = rows
    fitted = fit_positions(model, 48)
    grid = fitted.embeddings.position_embeddings[0, 1:, 0].view(6, 6)
    assert (grid.diff(dim=0) > 0).all()
    torch.testing.assert_close(grid[:, :1].expand(6, 6), grid)
    assert list(fitted.config.image_size) == [48, 48]


def test_weights_that_belong_to_one_size_are_refused_and_random_numbers_left_alone() -> None:
    fields = {"hidden_sizes": [8, 8, 8], "num_attention_heads": [1, 1, 1], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
    model = LevitModel(LevitConfig(image_size=64, **fields))
    state = torch.get_rng_state()
    with pytest.raises(DistilvlError, match="belong to pictures of 64 pixels and cannot be resampled"):
        fit_positions(model, 128)
    assert torch.equal(torch.get_rng_state(), state)
    assert fit_positions(model, 64) is model
