"""What holds for every balancer."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers import (
    DWABalancer,
    GradNormBalancer,
    OfficialBalancer,
    PaperBalancer,
    StaticBalancer,
    UncertaintyBalancer,
)

EVERY = {
    "paper": PaperBalancer,
    "paper, tau 0.05": lambda: PaperBalancer(0.05),
    "paper, smoothed": lambda: PaperBalancer(smoothing=0.9),
    "official": OfficialBalancer,
    "dwa": DWABalancer,
    "static": lambda: StaticBalancer({"hnd": 0.01}),
    "uncertainty": UncertaintyBalancer,
    "uncertainty, fast": lambda: UncertaintyBalancer(lr=2.0),
    "gradnorm": GradNormBalancer,
    "gradnorm, fast": lambda: GradNormBalancer(lr=3.0),
}
STATEFUL = [name for name in EVERY if name != "static"]

values = st.one_of(st.just(0.0), st.floats(0, 1e6))
pairs = st.tuples(values, values)
factors = st.sampled_from([0.0, 0.1, 0.9, 1.0, 1.1, 10.0])


@st.composite
def jumps(draw):
    """Two losses that stay, jump tenfold either way, or are exactly 0 for a step, between 1e-9 and 1e6."""
    level = [draw(st.floats(1e-3, 1e3)), draw(st.floats(1e-3, 1e3))]
    history = []
    for now in draw(st.lists(st.tuples(factors, factors), min_size=2, max_size=30)):
        history.append(tuple(x * f for x, f in zip(level, now, strict=True)))
        level = [min(max(x * (f or 1), 1e-9), 1e5) for x, f in zip(level, now, strict=True)]
    return history


histories = st.one_of(st.lists(pairs, min_size=1, max_size=8), jumps())


def step(balancer, pair, end_epoch=False):
    """One call; the gradient of each loss has the loss's size, and `hnd` has none at 0."""
    z = torch.zeros(2, requires_grad=True)
    losses = {"cd": pair[0] + (1 + pair[0]) * z[0], "hnd": pair[1] + pair[1] * z[1]}
    multipliers = balancer(losses, (z,))
    if end_epoch:
        balancer.end_epoch()
    return {name: m.item() for name, m in multipliers.items()}


@pytest.mark.parametrize("name", EVERY)
@given(history=histories)
def test_multipliers_are_finite_for_any_losses(name, history):
    balancer = EVERY[name]()
    for pair in history:
        assert all(math.isfinite(m) for m in step(balancer, pair, end_epoch=True).values())


@pytest.mark.parametrize("name", EVERY)
@given(history=histories, cut=st.integers(0, 20))
def test_resume_through_json_is_exact(name, history, cut):
    balancer, resumed = EVERY[name](), EVERY[name]()
    for k, pair in enumerate(history[:cut]):
        step(balancer, pair, end_epoch=k % 2 == 1)
    resumed.load_state_dict(json.loads(json.dumps(balancer.state_dict())))
    for pair in history[cut:]:
        assert step(balancer, pair, end_epoch=True) == step(resumed, pair, end_epoch=True)
    assert balancer.state_dict() == resumed.state_dict()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named(name, bad):
    with pytest.raises(DistilvlError, match=r"loss 'hnd' is (nan|inf).*learning rate"):
        step(EVERY[name](), (1.0, bad))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_missing_or_new_loss_is_named(name):
    balancer = EVERY[name]()
    step(balancer, (1.0, 2.0))
    with pytest.raises(DistilvlError, match="loss 'hnd' is missing"):
        balancer({"cd": torch.tensor(1.0)})
    with pytest.raises(DistilvlError, match="loss 'fd' was not there before"):
        balancer({"cd": torch.tensor(1.0), "hnd": torch.tensor(1.0), "fd": torch.tensor(1.0)})


def test_no_losses_at_all_is_an_error():
    with pytest.raises(DistilvlError, match="no losses"):
        StaticBalancer()({})


@pytest.mark.parametrize("name", EVERY)
def test_a_failed_step_leaves_the_state_alone(name):
    balancer = EVERY[name]()
    step(balancer, (1.0, 2.0))
    before = balancer.state_dict()
    with pytest.raises(DistilvlError):
        step(balancer, (1.0, math.nan))
    assert balancer.state_dict() == before


@pytest.mark.parametrize("name", EVERY)
def test_multipliers_have_at_least_float32(name):
    z = torch.ones(1, requires_grad=True)
    losses = {"cd": z[0].bfloat16(), "hnd": z[0].double()}
    multipliers = EVERY[name]()(losses, (z,))
    assert multipliers["cd"].dtype == torch.float32
    assert multipliers["hnd"].dtype == torch.float64
