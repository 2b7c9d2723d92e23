"""What holds for every balancer."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers import DWABalancer, OfficialBalancer, PaperBalancer, StaticBalancer

EVERY = [PaperBalancer, lambda: PaperBalancer(smoothing=0.9), OfficialBalancer, DWABalancer, StaticBalancer]
STATEFUL = EVERY[:4]

values = st.one_of(st.just(0.0), st.floats(0, 1e6))
histories = st.lists(st.tuples(values, values), min_size=1, max_size=8)


def step(balancer, pair, end_epoch=False):
    multipliers = balancer({"cd": torch.tensor(pair[0]), "hnd": torch.tensor(pair[1])})
    if end_epoch:
        balancer.end_epoch()
    return {name: m.item() for name, m in multipliers.items()}


@pytest.mark.parametrize("make", EVERY)
@given(history=histories)
def test_multipliers_are_finite_for_any_losses(make, history):
    balancer = make()
    for pair in history:
        assert all(math.isfinite(m) for m in step(balancer, pair, end_epoch=True).values())


@pytest.mark.parametrize("make", EVERY)
@given(history=histories, cut=st.integers(0, 8))
def test_resume_through_json_is_exact(make, history, cut):
    balancer, resumed = make(), make()
    for k, pair in enumerate(history[:cut]):
        step(balancer, pair, end_epoch=k % 2 == 1)
    resumed.load_state_dict(json.loads(json.dumps(balancer.state_dict())))
    for pair in history[cut:]:
        assert step(balancer, pair, end_epoch=True) == step(resumed, pair, end_epoch=True)
    assert balancer.state_dict() == resumed.state_dict()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named(make, bad):
    with pytest.raises(DistilvlError, match=r"loss 'hnd' is (nan|inf).*learning rate"):
        step(make(), (1.0, bad))


@pytest.mark.parametrize("make", STATEFUL)
def test_a_missing_or_new_loss_is_named(make):
    balancer = make()
    step(balancer, (1.0, 2.0))
    with pytest.raises(DistilvlError, match="loss 'hnd' is missing"):
        balancer({"cd": torch.tensor(1.0)})
    with pytest.raises(DistilvlError, match="loss 'fd' was not there before"):
        balancer({"cd": torch.tensor(1.0), "hnd": torch.tensor(1.0), "fd": torch.tensor(1.0)})


def test_no_losses_at_all_is_an_error():
    with pytest.raises(DistilvlError, match="no losses"):
        StaticBalancer()({})


@pytest.mark.parametrize("make", EVERY)
def test_a_failed_step_leaves_the_state_alone(make):
    balancer = make()
    step(balancer, (1.0, 2.0))
    before = balancer.state_dict()
    with pytest.raises(DistilvlError):
        step(balancer, (1.0, math.nan))
    assert balancer.state_dict() == before


@pytest.mark.parametrize("make", EVERY)
def test_multipliers_have_at_least_float32(make):
    losses = {"cd": torch.tensor(1.0, dtype=torch.bfloat16), "hnd": torch.tensor(1.0, dtype=torch.float64)}
    multipliers = make()(losses)
    assert multipliers["cd"].dtype == torch.float32
    assert multipliers["hnd"].dtype == torch.float64
