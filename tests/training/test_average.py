from __future__ import annotations

import torch
from torch import nn

from distilvl.training.optimizer import average_of


def test_the_mean_follows_the_weights_with_a_decay_that_grows_to_its_value() -> None:
    layer = nn.Linear(2, 1, bias=False)
    average = average_of(layer, 0.5)
    expected = None
    for count, value in enumerate((1.0, 3.0, -2.0, 5.0, 0.5, 7.0, 7.5, 1.0, 2.0, 4.0, 8.0, 1.0)):
        nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.module.weight, torch.full((1, 2), expected))
    assert layer.weight.unique().item() == 1.0  # the weights themselves are not touched


def test_its_state_continues_where_it_was() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    one, other = average_of(first, 0.9), average_of(second, 0.9)
    for _ in range(4):
        nn.init.normal_(first.weight)
        one.update_parameters(first)
    other.load_state_dict(one.state_dict())
    for average in (one, other):
        average.update_parameters(second)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
