"""The examples, each where its package is installed, with a small untrained student."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from distilvl.config import StudentConfig
from distilvl.students import build_student, save_student

EXAMPLES = Path(__file__).parents[2] / "examples"
COLOURS = ("red", "green", "blue", "white")
STUDENT = {
    "image": {
        "config": {
            "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": 32, "patch_size": 8,
        },
        "size": 32, "pooling": "mean",
    },
    "text": {
        "config": {
            "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 32,
        },
        "vocabulary": 60, "max_length": 24, "pooling": "mean",
    },
}  # fmt: skip
TEXTS = [f"a {colour} circle" for colour in COLOURS]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dropins") / "student"
    save_student(build_student(StudentConfig.model_validate(STUDENT), 8, TEXTS * 10), path)
    return str(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption"))
        for colour, text in zip(COLOURS, TEXTS, strict=True):
            Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
            rows.writerow((f"{colour}.png", text))
    return str(folder)


def check(hits: list[tuple[float, str]]) -> None:
    """All texts, the query itself first."""
    assert hits[0][1] == TEXTS[2]
    assert math.isclose(hits[0][0], 1, abs_tol=1e-4)
    assert {text for _, text in hits} == set(TEXTS)
    assert [score for score, _ in hits] == sorted((score for score, _ in hits), reverse=True)


def test_sentence_transformers(student: str, photos: str) -> None:
    hits = example("sentence_transformers_search").search(student, photos, TEXTS[0], top=3)
    assert len(hits) == 3
    assert [score for score, _ in hits] == sorted((score for score, _ in hits), reverse=True)
    assert {path.suffix for _, path in hits} == {".png"}


@pytest.mark.beside
def test_langchain(student: str) -> None:
    pytest.importorskip("langchain_huggingface")
    check(example("langchain_search").search(student, TEXTS[2], TEXTS))


@pytest.mark.beside
def test_llama_index(student: str) -> None:
    pytest.importorskip("llama_index.embeddings.huggingface")
    check(example("llama_index_search").search(student, TEXTS[2], TEXTS))


@pytest.mark.beside
@pytest.mark.slow
def test_mteb(student: str, photos: str) -> None:
    pytest.importorskip("mteb")
    scores = example("mteb_retrieval").evaluate(student, photos)
    assert 0 <= scores["recall_at_1"] <= scores["recall_at_5"] == scores["recall_at_10"] == 1
