"""Pooling over stages of a timm network: what it computes, saved and loaded without this package, and its limits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

import timm
from distilvl.config import TrainingConfig
from distilvl.errors import DistilvlError
from distilvl.students import DualEncoder, load_student, save_student
from distilvl.students.storage import is_student, route
from distilvl.students.trial import try_gradients, try_student
from distilvl.training.student import make_ready, tower_identity

NARROW_SWIN = {
    "model_type": "timm_wrapper", "architecture": "swin_tiny_patch4_window7_224", "num_labels": 0, "label_names": [],
    "model_args": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
}  # fmt: skip


def _tower(encoder: DualEncoder) -> Any:
    return route(encoder.student, "image")[0].model


@torch.no_grad()
def _by_hand(encoder: DualEncoder, pixels: torch.Tensor) -> torch.Tensor:
    """z = sum_k W_k mean(F_k) + b in float64, L2-normalised; the maps are of the network before the neck."""
    model = copy.deepcopy(_tower(encoder)).double()
    inputs = (pixels.double() - encoder.mean.double()) / encoder.std.double()
    maps = model.backbone.timm_model(inputs)
    convolutions = list(model.neck.convs)[::-1]
    z = sum(
        stage.mean((2, 3)) @ one.weight[:, :, 0, 0].T + one.bias for stage, one in zip(maps, convolutions, strict=True)
    )
    return F.normalize(torch.as_tensor(z))


@pytest.mark.parametrize("stages", [None, [4], [2, 3, 4], [1, 2]])
def test_embeddings_are_the_sum_of_linear_maps_of_the_means(
    student: Any, pictures: list[Image.Image], stages: list[int] | None, tmp_path: Path
) -> None:
    encoder = student(stages=stages)
    with torch.no_grad():
        for convolution in _tower(encoder).neck.convs:
            convolution.bias.normal_()
    pixels = torch.from_numpy(encoder.resize(pictures))
    expected = _by_hand(encoder, pixels)
    with torch.no_grad():
        pooled = encoder.pool_images(pixels)
        found = encoder.encode_images(pixels), encoder.encode_images(pooled)
    assert pooled.shape == (2, sum(encoder.stage_widths)) == (2, encoder.head("image").in_features)
    save_student(encoder.student, tmp_path / "student")
    plain = SentenceTransformer(str(tmp_path / "student")).encode(pictures, convert_to_tensor=True)
    for embeddings in (*found, plain):
        torch.testing.assert_close(embeddings.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_student_with_stages_is_a_student_with_two_modules_and_no_more_weights(student: Any) -> None:
    encoder = student()
    modules = route(encoder.student, "image")
    assert is_student(encoder.student)
    assert [type(module).__name__ for module in modules] == ["Transformer", "Pooling"]
    whole = timm.create_model("test_efficientnet", num_classes=0)
    head = encoder.head("image")
    assert head.out_features == 12
    assert encoder.stage_widths == [128, 192]  # the last blocks of these stages widen their maps to so many channels
    tower = sum(weight.numel() for weight in head.tower.parameters())
    assert sum(weight.numel() for weight in modules.parameters()) == tower + sum(w.numel() for w in head.parameters())
    assert tower < sum(weight.numel() for weight in whole.parameters())


def test_weights_are_those_of_the_pretrained_network(lite: str, student: Any, pictures: list[Image.Image]) -> None:
    encoder = student(model=lite)
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(lite, dtype=torch.float32).eval().timm_model
    last: dict[str, torch.Tensor] = {}
    for block, name in ((whole.blocks[4][-1], "fine"), (whole.blocks[6][-1], "coarse")):
        block.conv_pwl.register_forward_pre_hook(lambda _, given, name=name: last.update({name: given[0].mean((2, 3))}))
    pixels = torch.from_numpy(encoder.resize(pictures))
    with torch.no_grad():
        whole((pixels.float() - encoder.mean) / encoder.std)
        found = encoder.pool_images(pixels)
    assert encoder.stage_widths == [672, 1152]
    torch.testing.assert_close(found, torch.cat([last["fine"], last["coarse"]], dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "architecture", ["test_resnet", "repghostnet_050", "test_convnext", "mobilenetv4_conv_small_035"]
)
def test_other_families_keep_their_weights_too(architecture: str, student: Any) -> None:
    encoder = student(architecture)
    network = _tower(encoder).backbone.timm_model
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = network.eval()(images)
    assert [stage.shape[1] for stage in maps] == encoder.stage_widths
    assert [stage.shape[2] for stage in maps] == [4, 2]
    try_student(encoder, reload=False)


def test_a_head_is_read_and_set_as_one_matrix(student: Any, pictures: list[Image.Image]) -> None:
    encoder = student(stages=[2, 3, 4])
    head, generator = encoder.head("image"), torch.Generator().manual_seed(0)
    weight = torch.randn(12, head.in_features, generator=generator)
    bias = torch.randn(12, generator=generator)
    head.set(weight, bias)
    assert torch.equal(head.weight, weight)
    assert torch.equal(head.bias, bias)
    pixels = torch.from_numpy(encoder.resize(pictures))
    with torch.no_grad():
        expected = F.normalize(F.linear(encoder.pool_images(pixels), weight, bias))
        torch.testing.assert_close(encoder.encode_images(pixels), expected, atol=1e-5, rtol=1e-5)


def test_freezing_keeps_the_head_learning_and_the_embeddings(student: Any, pictures: list[Image.Image]) -> None:
    encoder = student()
    pixels = torch.from_numpy(encoder.resize(pictures))
    with torch.no_grad():
        before, fingerprint = encoder.encode_images(pixels), encoder.tower_fingerprint("image")
    encoder.freeze("image")
    learning = {name for name, weight in _tower(encoder).named_parameters() if weight.requires_grad}
    assert learning == {f"neck.convs.{k}.{kind}" for k in range(2) for kind in ("weight", "bias")}
    assert encoder.tower_layers()[0] == []
    encoder.train()
    pooled = encoder.pool_images(pixels)
    assert not pooled.requires_grad
    encoder.encode_images(pooled).sum().backward()
    assert all(weight.grad is not None for weight in encoder.head("image").parameters())
    torch.testing.assert_close(encoder.encode_images(pooled), before, atol=1e-5, rtol=1e-5)
    encoder.head("image").set(torch.zeros_like(encoder.head("image").weight), torch.ones(12))
    assert encoder.tower_fingerprint("image") == fingerprint


def test_gradients_reach_all_stages_and_statistics_stay(student: Any, pictures: list[Image.Image]) -> None:
    encoder = student()
    statistics = {name: tensor.clone() for name, tensor in _tower(encoder).named_buffers()}
    try_gradients(encoder)
    encoder.train()
    pixels = torch.from_numpy(encoder.resize(pictures))
    together = encoder.encode_images(pixels)
    assert torch.allclose(together[:1], encoder.encode_images(pixels[:1]), atol=1e-5)
    assert not encoder.has_batch_statistics("image")
    make_ready(encoder, TrainingConfig(gradcache_chunks=2), processes=2)  # refused where rows depend on each other
    assert all(torch.equal(statistics[name], tensor) for name, tensor in _tower(encoder).named_buffers())


def test_students_of_teachers_of_other_widths_share_what_is_stored_of_images(student: Any) -> None:
    one, other = student(dim=12), student(dim=8)
    tower = _tower(one).backbone.state_dict()
    _tower(other).backbone.load_state_dict(tower)
    assert tower_identity(one, "image") == tower_identity(other, "image")
    assert tower_identity(one, "image") != tower_identity(student(dim=12, stages=[4]), "image")


def test_layers_are_known_for_layer_decay(student: Any) -> None:
    depths = student().tower_layers()[0]
    assert len(depths) > 4
    in_tower = {id(weight) for layer in depths for weight in layer}
    assert in_tower.isdisjoint(id(weight) for weight in student().heads())


def test_saved_and_loaded_students_go_on(student: Any, pictures: list[Image.Image], tmp_path: Path) -> None:
    encoder = student()
    save_student(encoder.student, tmp_path / "student")
    loaded = DualEncoder(load_student(tmp_path / "student", device="cpu")).eval()
    pixels = torch.from_numpy(loaded.resize(pictures))
    assert loaded.preprocessing == encoder.preprocessing
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_images(pixels), encoder.encode_images(pixels))
    assert loaded.tower_fingerprint("image") == encoder.tower_fingerprint("image")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"size": 80}, r"80 x 80 .* 32 must divide .* student\.image\.size to 64"),
        ({"stages": [5]}, r"stage 5 is none of .* Choose from 0 \(1/2 of the side\)"),
        ({"stages": [2, 4]}, r"2 \(1/8\), 4 \(1/32\): each map must be half .* neighbouring"),
        ({"stages": [3, 3]}, r"a stage is named twice"),
        ({"architecture": "test_vit", "size": 160}, r"each map must be half"),
        ({"config": NARROW_SWIN, "size": 224}, r"are not \(channels, height, width\)"),
        ({"architecture": "mixer_s32_224", "size": 224}, r"gives no feature maps|each map must be half"),
    ],
)
def test_what_cannot_be_pooled_over_stages(student: Any, image: dict[str, Any], message: str) -> None:
    with pytest.raises(DistilvlError, match=message) as caught:
        student(**image)
    assert "\n" not in str(caught.value)
