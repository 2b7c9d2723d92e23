from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

import distilvl
from distilvl.config import StudentConfig
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student, count_parameters, load_student, save_student
from distilvl.students.processors import learn_tokenizer

CAPTIONS = ["a red circle above a blue square", "a small green star", "two pink hearts on a grey background"]


def images(count: int = 3, side: int = 40) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture
def pretrained(tmp_path: Path) -> tuple[Path, Path]:
    """A ViT folder of 3 layers at 32 px and a BERT folder of 3 layers, as transformers saves them."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    vit, bert = tmp_path / "vit", tmp_path / "bert"
    ViTModel(ViTConfig(image_size=32, patch_size=8, **size)).save_pretrained(vit)
    fields = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    (vit / "preprocessor_config.json").write_text(json.dumps(fields), encoding="utf-8")
    tokenizer = learn_tokenizer(CAPTIONS, 100, 32)
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    return vit, bert


def pretrained_config(folders: tuple[Path, Path], *overrides: str) -> StudentConfig:
    vit, bert = folders
    towers = [f"student.image.model={vit}", f"student.text.model={bert}", "student.image.size=32"]
    return load_config("paper", overrides=[*towers, *(f"student.{item}" for item in overrides)]).student


def test_new_student_encodes_as_the_dual_encoder_does(student_yaml: Path) -> None:
    student = distilvl.build_student(student_yaml, 12, captions=CAPTIONS)
    encoder = DualEncoder(student).eval()
    pictures = images()
    with torch.no_grad():
        z_image, z_text = encoder(torch.from_numpy(encoder.resize(pictures)), *encoder.pad(encoder.tokenize(CAPTIONS)))
    np.testing.assert_allclose(student.encode(pictures), z_image.numpy(), atol=1e-5)
    np.testing.assert_allclose(student.encode(CAPTIONS), z_text.numpy(), atol=1e-5)
    np.testing.assert_allclose(z_image.norm(dim=1), 1, atol=1e-5)
    assert z_image.shape == z_text.shape == (3, 12)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_pretrained_towers_are_cut_and_keep_their_weights(pretrained: tuple[Path, Path], pooling: str) -> None:
    config = pretrained_config(pretrained, "image.layers=2", "text.layers=1", f"text.pooling={pooling}")
    student = build_student(config, 12)
    vit, bert = (student[0].sub_modules[name][0].model for name in ("image", "text"))
    assert (vit.config.num_hidden_layers, bert.config.num_hidden_layers) == (2, 1)
    assert (bert.pooler is not None) == (pooling == "pooler")
    original = ViTModel.from_pretrained(pretrained[0])
    for name, tensor in vit.state_dict().items():
        torch.testing.assert_close(tensor, original.state_dict()[name])
    encoder = DualEncoder(student).eval()
    pictures = images()
    with torch.no_grad():
        z_image, z_text = encoder(torch.from_numpy(encoder.resize(pictures)), *encoder.pad(encoder.tokenize(CAPTIONS)))
    np.testing.assert_allclose(student.encode(pictures), z_image.numpy(), atol=1e-5)
    np.testing.assert_allclose(student.encode(CAPTIONS), z_text.numpy(), atol=1e-5)


def test_without_l2_rows_keep_their_length_saved_or_not(student_yaml: Path, tmp_path: Path) -> None:
    student = distilvl.build_student(student_yaml, 12, captions=CAPTIONS, overrides=["normalize=false"])
    rows = student.encode(CAPTIONS)
    assert (abs(np.linalg.norm(rows, axis=1) - 1) > 1e-3).all()
    save_student(student, tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    np.testing.assert_allclose(loaded.encode(CAPTIONS), rows, atol=1e-5)
    assert not DualEncoder(loaded).normalized
    unit = distilvl.build_student(student_yaml, 12, captions=CAPTIONS)
    assert DualEncoder(unit).normalized


def test_a_cnn_may_be_the_image_tower(student_yaml: Path, tmp_path: Path) -> None:
    cnn = "{config: {model_type: convnext, patch_size: 4, hidden_sizes: [8, 12, 16, 24], depths: [1, 1, 1, 1]}, "
    overrides = [f"student.image={cnn}size: 32, pooling: pooler}}"]
    config = load_config("paper", student=str(student_yaml), overrides=overrides).student
    student = build_student(config, 12, CAPTIONS)
    encoder = DualEncoder(student).eval()
    with torch.no_grad():
        rows = encoder.encode_images(torch.from_numpy(encoder.resize(images()))).numpy()
    assert rows.shape == (3, 12)
    np.testing.assert_allclose(student.encode(images()), rows, atol=1e-5)
    save_student(student, tmp_path / "student")
    np.testing.assert_allclose(load_student(tmp_path / "student").encode(images()), rows, atol=1e-5)


RESNET = "model_type: resnet, embedding_size: 4, hidden_sizes: [4, 8], depths: [1, 1], layer_type: basic"
REGNET = "model_type: regnet, embedding_size: 4, hidden_sizes: [4, 8], depths: [1, 1], groups_width: 4"
MOBILENET = "model_type: mobilenet_v2, depth_multiplier: 0.25, image_size: 32"


@pytest.mark.parametrize("fields", [RESNET, REGNET, MOBILENET], ids=["resnet", "regnet", "mobilenet"])
def test_a_cnn_may_pool_to_a_map_of_one_position(student_yaml: Path, tmp_path: Path, fields: str) -> None:
    rows = {}
    for pooling in ("pooler", "mean"):
        torch.manual_seed(0)
        override = f"student.image={{config: {{{fields}}}, size: 32, pooling: {pooling}}}"
        config = load_config("paper", student=str(student_yaml), overrides=[override]).student
        student = build_student(config, 12, CAPTIONS)
        encoder = DualEncoder(student).eval()
        with torch.no_grad():
            rows[pooling] = encoder.encode_images(torch.from_numpy(encoder.resize(images()))).numpy()
        assert rows[pooling].shape == (3, 12)
        np.testing.assert_allclose(student.encode(images()), rows[pooling], atol=1e-5)
        save_student(student, tmp_path / pooling)
        np.testing.assert_allclose(load_student(tmp_path / pooling).encode(images()), rows[pooling], atol=1e-5)
    np.testing.assert_allclose(rows["pooler"], rows["mean"], atol=1e-5)


def test_clip_and_siglip_towers_take_another_image_size(pretrained: tuple[Path, Path], tmp_path: Path) -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for model in (
        CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=8, **size)),
        SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=8, **size)),
    ):
        folder = tmp_path / model.config.model_type
        model.save_pretrained(folder)
        shutil.copy(pretrained[0] / "preprocessor_config.json", folder)
        for pooling in ("mean", "pooler"):
            config = pretrained_config((folder, pretrained[1]), "image.size=48", f"image.pooling={pooling}")
            student = build_student(config, 12)
            rows = student.encode(images(side=100))
            assert rows.shape == (3, 12)
            save_student(student, tmp_path / "student")
            np.testing.assert_allclose(load_student(tmp_path / "student").encode(images(side=100)), rows, atol=1e-5)


def test_another_image_size_resamples_positions_once(pretrained: tuple[Path, Path]) -> None:
    student = build_student(pretrained_config(pretrained, "image.size=48"), 12)
    vit = student[0].sub_modules["image"][0].model
    assert vit.embeddings.position_embeddings.shape == (1, 1 + 36, 16)
    assert student.encode(images(side=100)).shape == (3, 12)


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_saved_student_loads_without_this_package(pretrained: tuple[Path, Path], tmp_path: Path, pooling: str) -> None:
    student = build_student(pretrained_config(pretrained, f"text.pooling={pooling}"), 12)
    save_student(student, tmp_path / "student")
    expected = np.concatenate([student.encode(CAPTIONS), student.encode(images())])
    np.save(tmp_path / "expected.npy", expected)
    pixels = np.stack([np.asarray(image) for image in images()])
    np.save(tmp_path / "pixels.npy", pixels)
    script = f"""
import sys, numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({str(tmp_path / "student")!r})
rows = np.concatenate([model.encode({CAPTIONS!r}), model.encode([Image.fromarray(x) for x in np.load(sys.argv[1])])])
assert not any(name.startswith("distilvl") for name in sys.modules)
print(abs(rows - np.load(sys.argv[2])).max(), sum(p.numel() for p in model.parameters()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "pixels.npy"), str(tmp_path / "expected.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    difference, parameters = done.stdout.split()
    assert float(difference) < 1e-5
    assert int(parameters) == count_parameters(student)


def test_going_on_with_a_finished_student_checks_its_width(student_yaml: Path, tmp_path: Path) -> None:
    student = distilvl.build_student(student_yaml, 12, captions=CAPTIONS)
    save_student(student, tmp_path / "student")
    again = distilvl.build_student(tmp_path / "student", 12)
    np.testing.assert_array_equal(again.encode(CAPTIONS), student.encode(CAPTIONS))
    with pytest.raises(DistilvlError, match="dimension 12, the teacher has 16"):
        distilvl.build_student(tmp_path / "student", 16)


def test_what_is_not_a_student_is_refused(tmp_path: Path, pretrained: tuple[Path, Path]) -> None:
    with pytest.raises(DistilvlError, match="is not a student folder"):
        load_student(tmp_path)
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DistilvlError, match=r"not a student folder|no text and image routes"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image.layers=9", "has 3 layers, 9 were asked for"),
        ("image.size=30", "not a multiple of the tower's patch of 8. Use 32"),
        ("image.model=./nowhere", "does not exist"),
        ("text.model=no-such-owner/no-such-model", "cannot load tower|has no tokenizer"),
    ],
)
def test_towers_that_cannot_be_built_say_why(pretrained: tuple[Path, Path], override: str, message: str) -> None:
    with pytest.raises(DistilvlError, match=message):
        build_student(pretrained_config(pretrained, override), 12)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image.config.hidden_size=abc", r"student\.image\.config is refused: .*hidden_size"),
        ("image.config.num_attention_heads=0", r"student\.image\.config is refused"),
        ("image.config.patch_size=0", r"student\.image\.config is refused"),
        (
            "image.config={model_type: efficientnet, width_coefficient: 0.1, depth_coefficient: 0.1, hidden_dim: 16}",
            r"the image tower \(model_type efficientnet\) does not run with pooling mean",
        ),
    ],
)
def test_new_towers_whose_fields_are_wrong_say_why(student_yaml: Path, override: str, message: str) -> None:
    with pytest.raises(DistilvlError, match=message):
        distilvl.build_student(student_yaml, 12, captions=CAPTIONS, overrides=[override])


def test_a_new_tower_needs_a_config_and_captions() -> None:
    config = load_config("paper", student="demo").student
    with pytest.raises(DistilvlError, match="learns its vocabulary from captions"):
        build_student(config, 12)
    config.text.config = None
    with pytest.raises(DistilvlError, match="names neither a model nor a config"):
        build_student(config, 12, CAPTIONS)


def test_failed_save_leaves_the_former_student_alone(
    student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = distilvl.build_student(student_yaml, 12, captions=CAPTIONS)
    save_student(student, tmp_path / "student")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(student), "save", refuse)
    with pytest.raises(DistilvlError, match="No space left on device"):
        save_student(student, tmp_path / "student")
    assert load_student(tmp_path / "student").get_embedding_dimension() == 12
    assert sorted(path.name for path in tmp_path.iterdir() if "tmp" in path.name) == []
