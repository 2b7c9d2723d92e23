from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, ViTConfig, ViTModel
from transformers.utils import is_timm_available

import distilvl
from distilvl.errors import DistilvlError
from distilvl.students import save_student
from distilvl.students.storage import route

Tower = Callable[[str], Path]
STUBS = {"image": ("text_",), "text": ("vision_", "visual_", "image_")}
TEXTS = ["a dog", "a picture of number 7"]


def student_of(tower: Tower, *overrides: str, image: str = "ViT", text: str = "BERT") -> SentenceTransformer:
    towers = [f"image.model={tower(image)}", f"text.model={tower(text)}", "image.size=32"]
    return distilvl.build_student("tiny", 8, overrides=[*towers, *overrides])


@pytest.mark.parametrize("name", ["CLIP", "SigLIP", "Chinese-CLIP", "AltCLIP", "OWL-ViT", "ViT and BERT as one"])
def test_a_model_of_images_and_texts_gives_its_own_towers(tower: Tower, tmp_path: Path, name: str) -> None:
    whole = AutoModel.from_pretrained(tower(name)).state_dict()
    student = student_of(tower, "image.layers=2", "text.layers=2", image=name, text=name)
    for modality in ("image", "text"):
        every = route(student, modality)[0].model.named_parameters()
        weights = {key: weight for key, weight in every if not key.startswith(STUBS[modality])}
        equal = {key for key, weight in weights.items() for full in whole.values() if _same(weight, full)}
        large = {key for key, weight in weights.items() if weight.numel() > 8 * 80}
        assert len(large) > 10
        assert large <= equal, "weights that are not the folder's own"
        assert not [key for key in weights if ".layers.2." in key or ".layer.2." in key]
    save_student(student, tmp_path / "student")
    loaded = SentenceTransformer(str(tmp_path / "student"), local_files_only=True)
    pictures = [Image.new("RGB", (40, 50), colour) for colour in ("red", "blue")]
    for items in (TEXTS, pictures):
        np.testing.assert_array_equal(loaded.encode(items), student.encode(items))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_of_a_t5_the_encoder_is_taken(tower: Tower) -> None:
    for name in ("T5", "T5 with its decoder"):
        model = route(student_of(tower, text=name), "text")[0].model
        assert type(model).__name__ == "T5EncoderModel"
        assert not [key for key, _ in model.named_parameters() if "decoder" in key]


@pytest.mark.parametrize(
    ("modality", "name", "override", "reason"),
    [
        ("text", "BART", "", "cannot be the text tower: it is an encoder with a decoder"),
        ("text", "Whisper", "", "cannot be the text tower: it is an encoder with a decoder"),
        ("image", "X-CLIP", "", "cannot be the image tower: transformers cannot take its image part out"),
        ("image", "Swin", "image.layers=1", "stand in stages, which cannot be cut"),
        ("image", "MobileViT", "image.layers=1", "cannot be cut|no count of layers"),
        ("image", "ResNet", "image.pooling=cls", "puts out a map: .* Set student.image.pooling to pooler or mean"),
        ("text", "DistilBERT", "text.pooling=pooler", "gives no pooler_output, .* Set student.text.pooling to mean or"),
    ],
)
def test_what_cannot_be_a_tower_is_refused_by_name(
    tower: Tower, capfd: pytest.CaptureFixture[str], modality: str, name: str, override: str, reason: str
) -> None:
    tower(name)
    capfd.readouterr()
    with pytest.raises(DistilvlError, match=reason) as refused:
        student_of(tower, *[override] * bool(override), **{modality: name})
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_weights_of_another_model_are_refused_and_missing_ones_named(
    tower: Tower, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, partly = tmp_path / "wrong", tmp_path / "partly"
    shutil.copytree(tower("BERT"), wrong)
    shutil.copy(tower("ViT") / "model.safetensors", wrong)
    with pytest.raises(DistilvlError, match="holds no weights for BertModel"):
        student_of(lambda name: wrong if name == "BERT" else tower(name))
    fields = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    shutil.copytree(tower("ViT"), partly)
    ViTModel(ViTConfig(image_size=32, patch_size=8, **fields), add_pooling_layer=False).save_pretrained(partly)
    assert not caplog.records
    student_of(lambda name: partly if name == "ViT" else tower(name), "image.pooling=pooler")
    assert "holds no weights for pooler.dense.bias and 1 more: they begin at random" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_trained_in_full(tower: Tower, tmp_path: Path, dtype: torch.dtype) -> None:
    half = tmp_path / "half"
    shutil.copytree(tower("ViT"), half)
    AutoModel.from_pretrained(tower("ViT")).to(dtype).save_pretrained(half)
    assert str(dtype).endswith(json.loads((half / "config.json").read_text(encoding="utf-8"))["dtype"])
    student = student_of(lambda name: half if name == "ViT" else tower(name))
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}


def test_a_library_that_is_missing_is_named_in_one_line(tower: Tower, tmp_path: Path) -> None:
    if is_timm_available():
        pytest.skip("timm is installed")
    fields = {"model_type": "timm_wrapper", "architecture": "resnet18", "architectures": ["TimmWrapperModel"]}
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(DistilvlError, match="timm") as refused:
        student_of(lambda name: tmp_path if name == "ViT" else tower(name))
    assert os.linesep not in str(refused.value)
