"""timm's networks as plain image towers: their preprocessing, weights, training and export."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import TimmWrapperConfig, TimmWrapperModel

import timm
from distilvl.errors import DistilvlError
from distilvl.export.graphs import export_graphs, session
from distilvl.students import DualEncoder, load_student, save_student
from distilvl.students.processors import image_processor
from distilvl.students.storage import route
from distilvl.students.trial import try_gradients, try_student


def _folder(path: Path, architecture: str, pretrained_cfg: dict[str, Any] | None) -> str:
    """A folder as timm's on the hub: config.json with pretrained_cfg, safetensors, no preprocessor_config.json."""
    config = TimmWrapperConfig(architecture=architecture, num_labels=0, label_names=["a"])
    TimmWrapperModel(config).save_pretrained(path)
    fields = json.loads((path / "config.json").read_text())
    if pretrained_cfg is not None:
        fields["pretrained_cfg"] = pretrained_cfg
    (path / "config.json").write_text(json.dumps(fields))
    return str(path)


def _model(folder: str) -> Any:
    return TimmWrapperModel.from_pretrained(folder).eval()


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_a_timm_network_is_a_tower(student: Any, pictures: list[Image.Image], tmp_path: Path, pooling: str) -> None:
    encoder = student("test_resnet", pooling=pooling)
    try_student(encoder)
    try_gradients(encoder)
    assert encoder.stage_widths == [96]
    save_student(encoder.student, tmp_path / "student")
    expected = encoder.student.encode(pictures, convert_to_tensor=True)
    plain = SentenceTransformer(str(tmp_path / "student"))
    torch.testing.assert_close(plain.encode(pictures, convert_to_tensor=True), expected)
    assert route(plain, "image")[0].processor.backend == "pil"
    assert not encoder.has_batch_statistics("image")


@pytest.mark.parametrize(
    ("crop_pct", "crop_mode", "interpolation"), [(0.875, "center", "bicubic"), (1.0, "squash", "bilinear")]
)
def test_pixels_are_those_of_timm_in_evaluation(
    tmp_path: Path, crop_pct: float, crop_mode: str, interpolation: str
) -> None:
    mean, std = [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]
    known = {
        "input_size": [3, 56, 56], "crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": interpolation,
        "mean": mean, "std": std,
    }  # fmt: skip
    folder = _folder(tmp_path / "tower", "test_resnet", known)
    processor = image_processor(folder, None, _model(folder))
    transform = timm.data.create_transform(**timm.data.resolve_data_config(known))
    noise = np.random.default_rng(0)
    for shape in ((96, 120, 3), (120, 96, 3)):  # half of an odd margin is rounded in two ways
        small = noise.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize(shape[1::-1], Image.Resampling.BICUBIC)
        found = processor([picture], return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(found, transform(picture).numpy(), atol=2 / 255 / min(std))
    assert processor.backend == "pil"


def test_without_a_config_timm_knows_its_networks(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "tower", "tf_efficientnet_lite1", None)
    processor = image_processor(folder, None, _model(folder))
    assert (processor.crop_size.height, processor.size.shortest_edge) == (240, int(240 / 0.882))
    assert list(processor.image_mean) == [0.5, 0.5, 0.5]


def test_a_folder_with_its_own_preprocessing_keeps_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "tower", "test_resnet", {"input_size": [3, 96, 96]})
    fields = {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 48}, "resample": 2}
    (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(fields))
    processor = image_processor(folder, None, _model(folder))
    assert (processor.size.height, int(processor.resample), processor.backend) == (48, 2, "pil")


def test_preprocessing_without_a_plain_processor_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "tower", "test_resnet", {"input_size": [3, 64, 64], "crop_mode": "border"})
    with pytest.raises(DistilvlError, match=r"crop_mode border.*preprocessor_config\.json"):
        image_processor(folder, None, _model(folder))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["stages", "pooler"])
def test_branches_are_fused_in_the_graph_and_nowhere_else(
    student: Any, pictures: list[Image.Image], tmp_path: Path, pooling: str
) -> None:
    encoder = student("repghostnet_050", pooling=pooling)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    names = list(encoder.student.state_dict())
    pixels = torch.from_numpy(encoder.resize(pictures))
    with torch.no_grad():
        expected = encoder.encode_images(pixels)
    graph = export_graphs(encoder)["image"]
    assert list(encoder.student.state_dict()) == names
    found = session(graph).run(None, {"pixels": pixels.numpy()})[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    # What a branch adds beside a convolution is gone: the only sums left are those around whole blocks.
    fused = timm.utils.reparameterize_model(timm.create_model("repghostnet_050", num_classes=0))
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in fused.modules())
    assert sum(node.op_type == "Conv" for node in graph.graph.node) <= convolutions + 2


def test_a_missing_timm_is_named_with_its_remedy(student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_student(student().student, tmp_path / "student")
    monkeypatch.setitem(sys.modules, "timm", None)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "timm" else found(name, *rest))
    with pytest.raises(DistilvlError, match=r"timm.*pip install 'distilvl\[timm\]'"):
        load_student(tmp_path / "student")
    with pytest.raises(DistilvlError, match=r"timm.*pip install 'distilvl\[timm\]'"):
        student()
    with pytest.raises(DistilvlError, match=r"timm.*pip install 'distilvl\[timm\]'"):
        student(model="timm/resnet18.a1_in1k")


def test_channels_last_gives_the_same_numbers(lite: str, student: Any, pictures: list[Image.Image]) -> None:
    encoder: DualEncoder = student(model=lite)
    pixels = torch.from_numpy(encoder.resize(pictures))
    with torch.no_grad():
        expected = encoder.encode_images(pixels)  # position after position only where weights say so
        encoder.freeze("image")
        found = encoder.encode_images(encoder.pool_images(pixels))
    convolution = next(
        module for module in encoder.head("image").tower.modules() if isinstance(module, torch.nn.Conv2d)
    )
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_vit_of_timm_takes_another_size(student: Any, pictures: list[Image.Image], tmp_path: Path) -> None:
    encoder = student("test_vit", pooling="cls", size=48)
    assert encoder.image_size == (48, 48)
    tower = route(encoder.student, "image")[0].model.timm_model
    assert tower.pos_embed.shape[1] == 1 + (48 // 16) ** 2
    try_student(encoder)
    save_student(encoder.student, tmp_path / "student")
    expected = encoder.student.encode(pictures, convert_to_tensor=True)
    plain = SentenceTransformer(str(tmp_path / "student"))
    torch.testing.assert_close(plain.encode(pictures, convert_to_tensor=True), expected)
