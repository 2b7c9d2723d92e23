"""Small students and a small data set, exported once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from sentence_transformers import SentenceTransformer

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from distilvl.config import StudentConfig
from distilvl.data import PairDataset, load_dataset
from distilvl.export import Export, Settings, export_student
from distilvl.students import build_student, save_student

TEXT = {
    "config": {
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 32,
    },
    "vocabulary": 120, "max_length": 24, "pooling": "mean",
}  # fmt: skip
VIT = {
    "config": {
        "model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "image_size": 32, "patch_size": 8, "initializer_range": 0.2,
    },
    "size": 32, "pooling": "mean",
}  # fmt: skip
Build = Callable[..., SentenceTransformer]


@pytest.fixture(scope="session")
def scenes() -> PairDataset:
    """40 pictures to learn from, 24 to score on."""
    data = load_dataset("scenes")
    return PairDataset("scenes", (*data.split("train")[:40], *data.split("val")[:24]))


@pytest.fixture(scope="session")
def build(scenes: PairDataset) -> Build:
    def make(image: dict[str, object] = VIT, text: dict[str, object] = TEXT, **fields: object) -> SentenceTransformer:
        torch.manual_seed(0)
        config = StudentConfig.model_validate({"image": image, "text": text, **fields})
        return build_student(config, 16, scenes.captions)

    return make


@pytest.fixture(scope="session")
def run_folder(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of a finished run `export` looks at."""
    run = tmp_path_factory.mktemp("runs") / "small"
    run.mkdir()
    save_student(build(), run / "student")
    (run / "config.yaml").write_text(yaml.safe_dump({"inputs": {"data": "scenes"}}), encoding="utf-8")
    return run


@pytest.fixture(scope="session")
def exported(run_folder: Path, scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The small student in all three precisions, with its text embeddings kept in fp32."""
    out = tmp_path_factory.mktemp("exported") / "small"
    settings = Settings(
        precisions=("int8", "fp32", "fp16"), max_drop=600, keep=["text.tower.embeddings.position_embeddings"]
    )
    return export_student(run_folder, out, scenes, settings)
