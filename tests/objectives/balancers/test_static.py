from __future__ import annotations

import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers import StaticBalancer

LOSSES = {"cd": torch.tensor(3.0), "fd": torch.tensor(0.03)}


def test_weights_are_constant_and_1_by_default():
    balancer = StaticBalancer({"fd": 20.0})
    for _ in range(2):
        assert {name: m.item() for name, m in balancer(LOSSES).items()} == {"cd": 1, "fd": 20}
    assert balancer.state_dict() == {}


def test_a_weight_for_a_loss_that_is_not_there_is_named():
    with pytest.raises(DistilvlError, match=r"'hnd'.*cd, fd"):
        StaticBalancer({"hnd": 1.0})(LOSSES)
