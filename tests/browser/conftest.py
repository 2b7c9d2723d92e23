"""A small student that knows 200 drawn scenes by heart, exported."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from distilvl.config import StudentConfig
from distilvl.data import PairDataset
from distilvl.data.scenes import scenes_dataset
from distilvl.export import Settings, export_student
from distilvl.students import DualEncoder, build_student, save_student

STUDENT = {
    "image": {
        "config": {
            "model_type": "vit", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 96, "image_size": 32, "patch_size": 8,
        },
        "size": 32, "pooling": "mean",
    },
    "text": {
        "config": {
            "model_type": "bert", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 96, "max_position_embeddings": 64,
        },
        "vocabulary": 120, "max_length": 40, "pooling": "mean",
    },
}  # fmt: skip
STEPS = 250


@pytest.fixture(scope="session")
def scenes() -> PairDataset:
    return scenes_dataset(train=0, val=0, test=200, hard_negatives=False)


@pytest.fixture(scope="session")
def photos(scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a #1").mkdir()
    for k, record in enumerate(scenes):
        Image.open(io.BytesIO(record.image.read())).save(folder / ("a #1" if k % 2 else ".") / f"scene-{k:03d}.png")
    return folder


@pytest.fixture(scope="session")
def exported(scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In int8, as it is searched with in a page."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("learned")
    model = build_student(StudentConfig.model_validate(STUDENT), 48, scenes.captions)
    _learn(DualEncoder(model), scenes)
    save_student(model, folder / "student")
    out = folder / "exported"
    export_student(folder / "student", out, scenes, Settings(split="test", precisions=("int8",), max_drop=600))
    return out


def _learn(encoder: DualEncoder, scenes: PairDataset) -> None:
    """Each scene's first caption, by contrast with all the others."""
    pixels = torch.from_numpy(encoder.resize([Image.open(io.BytesIO(record.image.read())) for record in scenes]))
    ids, mask = encoder.pad(encoder.tokenize([record.captions[0] for record in scenes]))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    labels = torch.arange(len(scenes))
    encoder.eval()
    for _ in range(STEPS):
        images, texts = encoder(pixels, ids, mask)
        logits = 20 * images @ texts.T
        loss = torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
