"""A run with a student that pools over stages, its tower frozen or learning; the export of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sentence_transformers import SentenceTransformer

import distilvl
from distilvl.runtime import Runtime
from distilvl.students import DualEncoder, load_student

pytestmark = pytest.mark.slow

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder, lines = tmp_path / "data", []
    folder.mkdir()
    noise = np.random.default_rng(0)
    for k in range(24):
        name, colour = list(COLOURS.items())[k % 4]
        pixels = np.clip(np.array(colour) + noise.integers(-20, 21, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        split = "train" if k < 16 else "val"
        lines.append(json.dumps({"image": f"{k}.png", "captions": [f"{name} wall number {k}"], "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("image", "overrides"),
    [
        ({"frozen": True}, ["training.head_init=ridge"]),
        ({"frozen": False}, ["training.gradcache_chunks=2", "training.ema=0.9", "optimizer.layer_decay=0.8"]),
    ],
)
def test_train_and_export(
    data: Path, teacher: str, tmp_path: Path, image: dict[str, Any], overrides: list[str]
) -> None:
    config = {"model_type": "timm_wrapper", "architecture": "test_efficientnet", "num_labels": 0, "label_names": []}
    text = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 48}  # fmt: skip
    student = {
        "image": {"config": config, "size": 64, "pooling": "stages", "stages": [2, 3, 4], **image},
        "text": {"config": text, "vocabulary": 120, "max_length": 48, "pooling": "mean"},
    }
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(student))
    quick = ["training.epochs=2", "training.batch_size=8", "training.precision=fp32", "optimizer.lr=1e-3"]
    trained = distilvl.train(
        data=data, teacher=teacher, student=tmp_path / "student.yaml", out=tmp_path / "run", device="cpu",
        overrides=[*quick, *overrides],
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / "result.json").read_text())["val"]["rsum"] > 0
    first = load_student(tmp_path / "run" / "student", device="cpu")
    encoder = DualEncoder(first).eval()
    assert len(encoder.stage_widths) == 3
    pictures = [Image.open(data / f"{k}.png") for k in (0, 1)]
    plain = SentenceTransformer(str(tmp_path / "run" / "student"), device="cpu").encode(pictures)
    with torch.no_grad():
        found = encoder.encode_images(torch.from_numpy(encoder.resize(pictures)))
    np.testing.assert_allclose(found.numpy(), plain, atol=1e-5)
    np.testing.assert_allclose(trained.encode(pictures), plain, atol=1e-5)
    if not image["frozen"]:
        return
    settings = distilvl.export.Settings(max_drop=600)
    distilvl.export_student(tmp_path / "run", tmp_path / "exported", data, settings)
    for precision, least in (("fp32", 1 - 1e-5), ("int8", 0.9)):
        given = Runtime.load(tmp_path / "exported", precision=precision).encode_images(pictures)
        assert (given * plain).sum(axis=1).min() > least
