"""One of two processes, started by test_distributed.py: its loss, gradients and state against one process's own."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.objectives import LOSSES, MultiscaleObjective
from distilvl.objectives.balancers import Balancer, GradNormBalancer, PaperBalancer, UncertaintyBalancer
from distilvl.objectives.baselines import ClipKdGradient
from distilvl.objectives.loss import Loss
from distilvl.training.distributed import (
    gather_random,
    gather_rows,
    leave,
    own_random,
    rank_zero_first,
    require_agreement,
    require_same_number,
    seed_process,
    share_of,
    start_fabric,
)
from distilvl.training.gradcache import ChunkedEncoder

COUNTS = torch.tensor([2, 1, 3, 1, 1, 3, 2])
"""Captions of each image: 13 texts, which two processes do not share evenly."""
IMAGE_OF = torch.repeat_interleave(torch.arange(len(COUNTS)), COUNTS)
DIM, STEPS = 6, 3
PAPER = ("cd", "fd", "sd", "hnd")


class Towers(nn.Module):
    """Two small networks with L2-normalised embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, DIM))
        self.text = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, DIM))

    def forward(self, images: Tensor, texts: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        return F.normalize(self.image(images), dim=1), F.normalize(self.text(texts), dim=1)


def compare(losses: tuple[str | Loss, ...], make_balancer: Callable[[], Balancer], chunks: int) -> None:
    """Some steps of two processes beside the same steps of one, which knows nothing of chunks and shares."""
    torch.manual_seed(7)
    alone, optimizer_alone = _with_optimizer(Towers())
    joined = copy.deepcopy(alone)
    fabric_model, optimizer = FABRIC.setup(*_with_optimizer(joined))
    objectives = [MultiscaleObjective(DIM, losses, queue_size=20) for _ in range(2)]
    start = F.normalize(torch.randn(2, 20, DIM), dim=2)
    for objective in objectives:
        objective.fill(start[0], torch.arange(100, 120), start[1], torch.arange(100, 120))
    balancers = [make_balancer(), make_balancer()]
    passes = ChunkedEncoder(FABRIC, fabric_model, chunks)
    share = share_of(FABRIC)
    for step in range(STEPS):
        images, texts = torch.randn(len(COUNTS), 5), torch.randn(len(IMAGE_OF), 4)
        u_image, u_text = (F.normalize(torch.randn(len(x), DIM), dim=1) for x in (images, texts))
        ids = torch.randperm(40)[: len(COUNTS)]
        own = images[share.rows(len(images))], texts[share.rows(len(texts))]
        features = (
            passes.encode(*own, None, (len(images), len(texts))),
            alone(images, texts, None),
        )
        totals = []
        for (z_image, z_text), objective, balancer in zip(features, objectives, balancers, strict=True):
            found = objective(z_image[IMAGE_OF], z_text, u_image[IMAGE_OF], u_text, ids[IMAGE_OF])
            weights = balancer(found, (z_image, z_text))
            totals.append(torch.stack([weights[name] * value for name, value in found.items()]).sum())
        passes.backward(totals[0])
        totals[1].backward()
        for objective in objectives:
            objective.fill(u_image, ids, u_text, ids[IMAGE_OF])
        what = f"{losses} {type(balancers[0]).__name__} chunks {chunks} step {step}"
        # The first step starts from the same weights; from then on both carry their own rounding along.
        tolerance = 1e-6 if step == 0 else 1e-5
        close(totals[0], totals[1], what, tolerance)
        for (name, a), b in zip(joined.named_parameters(), alone.parameters(), strict=True):
            assert a.grad is not None, name
            assert b.grad is not None, name
            scale = max(1.0, float(b.grad.abs().max()))
            close(a.grad / scale, b.grad / scale, f"{what} {name}", tolerance)
        same_everywhere(totals[0].detach(), what)
        for part in balancers[0].state.values():
            same_everywhere(torch.tensor(list(part.values()), dtype=torch.float64), f"{what} balancer")
        for buffer in objectives[0].buffers():
            same_everywhere(buffer, f"{what} queue")
        for one in (optimizer, optimizer_alone):
            one.step()
            one.zero_grad()
    for (name, a), b in zip(joined.named_parameters(), alone.parameters(), strict=True):
        close(a, b, f"{losses} weights {name}", 1e-6)
        same_everywhere(a.detach(), name)
    for a, b in zip(objectives[0].buffers(), objectives[1].buffers(), strict=True):
        assert torch.equal(a, b), "queues"


def _with_optimizer(model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


def close(a: Tensor, b: Tensor, what: str, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}")


def same_everywhere(own: Tensor, what: str) -> None:
    """Bit for bit."""
    both = FABRIC.all_gather(own)
    assert torch.equal(both[0], both[1]), f"{what}: the processes differ"


def check_odds_and_ends() -> None:
    rank = FABRIC.global_rank
    rows = torch.arange(10.0).reshape(5, 2)
    assert torch.equal(gather_rows(FABRIC, rows[share_of(FABRIC).rows(5)], 5), rows)
    assert torch.equal(gather_rows(FABRIC, rows[:rank], 1), rows[:1])  # process 0 has none
    with pytest.raises(DistilvlError, match="its share is"):
        gather_rows(FABRIC, rows, 5)

    seed_process(FABRIC, 3)
    packed = {"random.cpu": torch.get_rng_state(), "weight": torch.ones(1)}
    everybody = gather_random(FABRIC, packed)
    assert everybody["random.cpu"].shape == (2, len(packed["random.cpu"]))
    assert not torch.equal(*everybody["random.cpu"])
    torch.rand(3)
    torch.set_rng_state(own_random(FABRIC, everybody)["random.cpu"])
    assert torch.equal(torch.get_rng_state(), packed["random.cpu"])

    require_agreement(FABRIC, data="a", precision="b")
    differs = pytest.raises(DistilvlError, match="process 1 has other data than process 0")
    with differs if rank == 1 else nullcontext():
        require_agreement(FABRIC, data=f"of process {rank}")
    require_same_number(2, FABRIC)
    assert rank_zero_first(FABRIC, lambda: rank) == rank

    def fail() -> None:
        raise DistilvlError("process 0 says why.")

    with pytest.raises(DistilvlError if rank == 0 else SystemExit):
        rank_zero_first(FABRIC, fail)


if __name__ == "__main__":
    FABRIC = start_fabric("cpu", "32-true")
    assert FABRIC.world_size == 2
    check_odds_and_ends()
    # Its gradient has a factor of 1 / tau^2, 400 at the default, and so has the rounding in it.
    soft = {"clipkd_gradient": ClipKdGradient(1.0)}
    for loss in LOSSES.shipped:
        compare((soft.get(loss, loss),), PaperBalancer, 1)
    for make in (PaperBalancer, GradNormBalancer, UncertaintyBalancer):
        for parts in (1, 2):
            compare(PAPER, make, parts)
    FABRIC.barrier()
    leave()
    assert not torch.distributed.is_initialized()
    sys.stdout.write("the same\n")
