from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

import distilvl
from distilvl.config import TrainingConfig
from distilvl.errors import DistilvlError
from distilvl.objectives import MultiscaleObjective
from distilvl.students import DualEncoder
from distilvl.students.storage import route
from distilvl.training.gradcache import ChunkedEncoder
from distilvl.training.student import make_ready, rest_idle_weights

COUNTS = torch.tensor([2, 1, 3, 1, 1])
IMAGE_OF = torch.repeat_interleave(torch.arange(5), COUNTS)


class Towers(nn.Module):
    """Two linear towers with dropout, which remember what they were asked and what they said."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(4, 6), nn.Linear(3, 6)
        self.dropout = nn.Dropout(dropout)
        self.said: list[tuple[bool, Tensor, Tensor]] = []

    def forward(self, images: Tensor, texts: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if attention_mask is not None:
            texts = texts * attention_mask
        z = tuple(F.normalize(self.dropout(tower(x)), dim=1) for tower, x in ((self.image, images), (self.text, texts)))
        self.said.append((torch.is_grad_enabled(), z[0].detach(), z[1].detach()))
        return z[0], z[1]


def _loss(z_image: Tensor, z_text: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    u_image, u_text = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (5, 8))
    objective = MultiscaleObjective(6, queue_size=4)
    objective.fill(u_image[:4], torch.arange(90, 94), u_text[:4], torch.arange(90, 94))
    losses = objective(z_image[IMAGE_OF], z_text, u_image[IMAGE_OF], u_text, torch.arange(5)[IMAGE_OF])
    return torch.stack(list(losses.values())).sum()


def _run(chunks: int, dropout: float) -> tuple[Towers, float, list[Tensor], Tensor]:
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    towers = Towers(dropout)
    model = fabric.setup(towers)
    images, texts, mask = torch.randn(5, 4), torch.randn(8, 3), torch.ones(8, 3)
    mask[:, 2] = 0
    passes = ChunkedEncoder(fabric, model, chunks)
    loss = _loss(*passes.encode(images, texts, mask, (5, 8)))
    passes.backward(loss)
    return (
        towers,
        float(loss.detach()),
        [p.grad for p in towers.parameters() if p.grad is not None],
        torch.get_rng_state(),
    )


@pytest.mark.parametrize("chunks", [1, 2, 3, 5, 50])
def test_chunks_give_the_loss_and_gradients_of_the_whole_batch(chunks: int) -> None:
    towers, loss, gradients, _ = _run(chunks, dropout=0.0)
    torch.manual_seed(0)
    plain = Towers(0.0)
    images, texts = torch.randn(5, 4), torch.randn(8, 3)
    texts[:, 2] = 0
    expected = _loss(*plain(images, texts, None))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-6)
    assert len(gradients) == 4
    for gradient, parameter in zip(gradients, plain.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-6, atol=1e-6)
    assert len(towers.said) == (1 if chunks == 1 else 2 * min(chunks, 5))


def test_both_passes_drop_the_same_and_the_next_step_drops_anew() -> None:
    towers, _, _, after = _run(3, dropout=0.5)
    first, second = towers.said[:3], towers.said[3:]
    for (had_graph, *before), (has_graph, *again) in zip(first, second, strict=True):
        assert (had_graph, has_graph) == (False, True)
        assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))
    torch.manual_seed(0)
    assert not torch.equal(after, torch.get_rng_state())
    towers(torch.ones(5, 4), torch.ones(8, 3), None)
    assert not torch.equal(towers.said[-1][1][:2] == 0, towers.said[0][1] == 0)


@pytest.fixture
def encoder(student_yaml: Path) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(distilvl.build_student(student_yaml, 12, captions=["a red box", "a blue dog"])).train()


def _gradients(encoder: DualEncoder) -> list[Tensor]:
    encoder.zero_grad()
    torch.manual_seed(5)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    ids, mask = encoder.pad(encoder.tokenize(["a red box", "a dog"]))
    z_image, z_text = encoder(images, ids, mask)
    (z_image.sum(dim=0) * z_text.sum(dim=0)).sum().backward()
    return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]


def test_recomputed_activations_give_the_same_gradients_dropout_included(encoder: DualEncoder) -> None:
    kept = _gradients(encoder)
    make_ready(encoder, TrainingConfig(checkpoint_activations=True), 1)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for name in ("image", "text"):
        tower = route(encoder.student, name)[0].model
        blocks = tower.layers if hasattr(tower, "layers") else tower.encoder.layer
        next(m for m in blocks[0].modules() if isinstance(m, nn.Linear)).register_forward_pre_hook(count)
    recomputed = _gradients(encoder)
    assert len(kept) == len(recomputed)
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))
    assert calls == 4  # a layer of each tower's first block, twice


CNN = """
image:
  config: {model_type: resnet, embedding_size: 4, hidden_sizes: [4, 8], depths: [1, 1], layer_type: basic}
  size: 32
  pooling: pooler
text:
  config: {model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
  vocabulary: 120
"""


@pytest.mark.parametrize(
    ("settings", "processes", "message"),
    [
        (
            {"gradcache_chunks": 2},
            1,
            r"image tower \(resnet\) normalises over the batch that training.gradcache_chunks",
        ),
        ({}, 2, r"image tower \(resnet\) normalises over the batch that training in several processes"),
        ({"checkpoint_activations": True}, 1, r"image tower \(resnet\) cannot compute its activations again"),
        ({"batch_size": 3}, 4, "a batch of 3 has no row for some of the 4 processes"),
    ],
)
def test_towers_that_cannot_are_named(tmp_path: Path, settings: dict[str, int], processes: int, message: str) -> None:
    (tmp_path / "cnn.yaml").write_text(CNN, encoding="utf-8")
    encoder = DualEncoder(distilvl.build_student(tmp_path / "cnn.yaml", 8, captions=["a box"]))
    with pytest.raises(DistilvlError, match=message):
        make_ready(encoder, TrainingConfig(**settings), processes)
    if "batch_size" not in settings:
        encoder.freeze("image")
        make_ready(encoder, TrainingConfig(**settings), processes)


def test_weights_that_no_feature_depends_on_rest(encoder: DualEncoder) -> None:
    tower = route(encoder.student, "image")[0].model
    tower.register_parameter("mask_token", nn.Parameter(torch.zeros(3)))
    before = sum(p.requires_grad for p in encoder.parameters())
    rest_idle_weights(encoder)
    assert not tower.mask_token.requires_grad
    assert sum(p.requires_grad for p in encoder.parameters()) == before - 1
    assert encoder.training


def test_a_share_without_images_passes_through_the_towers(encoder: DualEncoder) -> None:
    """Fewer distinct images than processes: one of them encodes none, and its image tower's gradients are 0."""
    fabric = Fabric(accelerator="cpu", devices=1)
    passes = ChunkedEncoder(fabric, fabric.setup(encoder))
    ids, mask = encoder.pad(encoder.tokenize(["a dog"]))
    z_image, z_text = passes.encode(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), ids, mask, (0, 1))
    assert (z_image.shape, z_text.shape) == ((0, 12), (1, 12))
    passes.backward(z_image.sum() + z_text[0, 0])
    gradients = {name: p.grad for name, p in encoder.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert {gradient.any().item() for name, gradient in gradients.items() if ".image." in name} == {False}
    assert any(gradient.any() for name, gradient in gradients.items() if ".text." in name)
