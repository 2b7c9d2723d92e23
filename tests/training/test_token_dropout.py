from __future__ import annotations

import torch

from distilvl.training.trainer import drop_tokens


def test_hides_the_stated_share_but_never_the_first_token_nor_padding() -> None:
    torch.manual_seed(0)
    mask = torch.ones(400, 50, dtype=torch.long)
    mask[:, 30:] = 0
    visible = drop_tokens(mask, 0.3)
    assert visible.dtype == torch.long
    assert (visible[:, 0] == 1).all()
    assert (visible[:, 30:] == 0).all()
    assert abs(visible[:, 1:30].float().mean() - 0.7) < 0.01
    assert mask[:, :30].all()  # the batch itself stays as it was


def test_no_share_hides_nothing() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(drop_tokens(mask, 0.0), mask)
