"""Pooling over several depths of a ViT: what it computes, saved and loaded without this package, and its limits."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from distilvl.config import StudentConfig
from distilvl.errors import DistilvlError
from distilvl.students import DualEncoder, build_student, load_student, save_student
from distilvl.students.storage import route
from distilvl.students.trial import try_gradients, try_student

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WIDE = {**SMALL, "intermediate_size": 32}
TEXT = {
    "config": {"model_type": "bert", **{k: v for k, v in WIDE.items() if "_size" not in k}, "hidden_size": 16,
               "intermediate_size": 32, "max_position_embeddings": 48},
    "vocabulary": 120, "max_length": 48, "pooling": "mean",
}  # fmt: skip
DIM = 12


def _student(model_type: str = "dinov2", stages: list[int] | None = None, size: int = 32, **fields: Any) -> DualEncoder:
    config = {"model_type": model_type, **(SMALL if model_type == "dinov2" else WIDE), **fields}
    image = {"config": config, "size": size, "pooling": "stages", "stages": stages}
    student = build_student(StudentConfig.model_validate({"image": image, "text": TEXT}), DIM, ("a red box",))
    return DualEncoder(student).eval()


def _pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)) for shape in ((50, 40, 3), (32, 64, 3))]


def _tower(encoder: DualEncoder) -> Any:
    return route(encoder.student, "image")[0].model


@torch.no_grad()
def _by_hand(encoder: DualEncoder, pixels: torch.Tensor, stages: list[int]) -> torch.Tensor:
    model = copy.deepcopy(_tower(encoder)).double()
    inputs = (pixels.double() - encoder.mean.double()) / encoder.std.double()
    states = model.vision_tower(inputs, output_hidden_states=True).hidden_states
    joined = torch.cat([states[stage + 1][:, 1:] for stage in stages], dim=-1)
    norm, head = model.multi_modal_projector.projector_layernorm, model.multi_modal_projector.linear_1
    means = F.layer_norm(joined, joined.shape[-1:], norm.weight, norm.bias, norm.eps).mean(1)
    return F.normalize(means @ head.weight.T + head.bias)


@pytest.mark.parametrize(
    ("model_type", "stages"),
    [("dinov2", None), ("dinov2", [0, 2]), ("vit", [1]), ("deit", [0, 1, 2]), ("clip_vision_model", None)],
)
def test_embeddings_are_a_linear_map_of_the_mean_of_normalised_states(
    model_type: str, stages: list[int] | None, tmp_path: Path
) -> None:
    encoder = _student(model_type, stages)
    with torch.no_grad():
        _tower(encoder).multi_modal_projector.linear_1.bias.normal_()
        _tower(encoder).multi_modal_projector.projector_layernorm.weight.uniform_(0.5, 2)
    pixels = torch.from_numpy(encoder.resize(_pictures()))
    expected = _by_hand(encoder, pixels, stages or [1, 2])
    with torch.no_grad():
        pooled = encoder.pool_images(pixels)
        found = encoder.encode_images(pixels), encoder.encode_images(pooled)
    assert encoder.stage_widths == [16] * len(stages or [1, 2])
    assert pooled.shape == (2, sum(encoder.stage_widths))
    save_student(encoder.student, tmp_path / "student")
    plain = SentenceTransformer(str(tmp_path / "student")).encode(_pictures(), convert_to_tensor=True)
    for embeddings in (*found, plain):
        torch.testing.assert_close(embeddings.double(), expected, atol=1e-5, rtol=1e-5)
    loaded = DualEncoder(load_student(tmp_path / "student", device="cpu")).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_images(pixels), found[0])


def test_weights_are_those_of_the_vit_at_another_size_too(tmp_path: Path) -> None:
    from transformers import AutoModel, Dinov2Config

    AutoModel.from_config(Dinov2Config(**SMALL)).save_pretrained(tmp_path / "vit")
    fields = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(fields))
    whole = AutoModel.from_pretrained(tmp_path / "vit")
    image = {"model": str(tmp_path / "vit"), "size": 48, "pooling": "stages"}
    encoder = DualEncoder(build_student(StudentConfig.model_validate({"image": image, "text": TEXT}), DIM, ("a",)))
    assert encoder.image_size == (48, 48)
    mine = _tower(encoder).vision_tower.state_dict()
    for name, tensor in whole.state_dict().items():
        if "position_embeddings" in name:
            assert mine[name].shape == (1, 1 + 36, 16)
        else:
            assert torch.equal(mine[name], tensor), name


def test_only_the_head_and_the_tower_learn() -> None:
    encoder = _student()
    head, projector = encoder.head("image"), _tower(encoder).multi_modal_projector
    assert torch.equal(projector.linear_2.weight, torch.eye(DIM))
    assert not any(weight.requires_grad for weight in projector.linear_2.parameters())
    try_student(encoder)
    try_gradients(encoder)
    layers = encoder.tower_layers()[0]
    assert len(layers) == 4  # the embeddings, three blocks
    encoder.freeze("image")
    assert encoder.tower_layers()[0] == []
    assert all(weight.requires_grad for weight in head.parameters())
    fingerprint = encoder.tower_fingerprint("image")
    head.set(torch.ones(DIM, head.in_features), torch.zeros(DIM))
    assert encoder.tower_fingerprint("image") == fingerprint
    weights = sum(weight.numel() for weight in _tower(encoder).parameters())
    needed = sum(weight.numel() for weight in (*head.tower.parameters(), *head.parameters()))
    assert weights - needed == DIM * DIM + DIM + 2 * DIM  # the identity, and the stub of a language model


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        ({"stages": [3]}, r"student\.image\.stages: stage 3 is none of this dinov2\. Its blocks are 0 to 2\."),
        ({"stages": [1, 1]}, r"a stage is named twice"),
        ({"model_type": "siglip_vision_model"}, r"\(siglip_vision_model\) has no CLS token"),
        ({"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
         r"takes networks of timm and ViTs, and the image tower is a resnet\. Name its timm version"),
    ],
)  # fmt: skip
def test_what_has_no_depths_to_join(tower: dict[str, Any], message: str) -> None:
    with pytest.raises(DistilvlError, match=message):
        _student(**tower)


def test_stages_belong_to_pooling_stages() -> None:
    with pytest.raises(ValueError, match="set pooling to stages"):
        StudentConfig.model_validate({"image": {"pooling": "mean", "stages": [1]}})
