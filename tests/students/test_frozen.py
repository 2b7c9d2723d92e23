"""The traced graph of a frozen convolutional tower: the tower's outputs, and the tower left as it was."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from distilvl.config import StudentConfig
from distilvl.students import DualEncoder, build_student
from distilvl.students.frozen import _Traced, traced_store

TEXT = {"kind": "static", "vocabulary": 150, "rank": 8}
CNN = {
    "config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
               "layer_type": "basic"},
    "size": 32, "pooling": "pooler",
}  # fmt: skip
VIT = {
    "config": {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
               "intermediate_size": 64, "image_size": 32, "patch_size": 4},
    "size": 32, "pooling": "mean",
}  # fmt: skip


def encoder_of(image: dict[str, object]) -> DualEncoder:
    torch.manual_seed(0)
    config = StudentConfig.model_validate({"image": image, "text": TEXT})
    encoder = DualEncoder(build_student(config, 8, ["a dog"]))
    encoder.freeze("image", "text")
    return encoder.eval()


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 0.99), (torch.float32, 1 - 1e-6)])
def test_it_gives_what_the_tower_gives_for_any_number_of_pictures(dtype: torch.dtype, least: float) -> None:
    encoder = encoder_of(CNN)
    pool = traced_store(encoder, dtype)
    assert pool is not None
    with torch.no_grad():
        for count in (4, 64, 1, 37, 64):
            found, expected = pool(pixels(count)), encoder.pool_images(pixels(count))
            assert found.shape == expected.shape
            assert found.dtype == torch.float32
            assert F.cosine_similarity(found, expected).min() > least


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_tower_stays_as_it_was(dtype: torch.dtype) -> None:
    encoder = encoder_of(CNN)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    traced_store(encoder, dtype)
    after = encoder.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert not any(weight.requires_grad for weight in encoder.head("image").tower.parameters())


def test_other_towers_are_left_alone() -> None:
    assert traced_store(encoder_of(VIT), torch.float32) is None


def test_a_graph_that_fails_gives_way_to_the_tower() -> None:
    encoder, calls = encoder_of(CNN), []

    def graph(_: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("could not add op to the graph")

    pool = _Traced(encoder, graph, torch.float32)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(pool(pixels(3)), encoder.pool_images(pixels(3)))
    assert len(calls) == 1
