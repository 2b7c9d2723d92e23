"""torchscale's answers, the recipe of the weights behind them, and a checkpoint and vocabulary made of both."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sentencepiece
import torch
from torch import Tensor

from distilvl.teachers.beit3.network import Beit3Config, Beit3Retrieval


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """The script that asked torchscale, as a module."""
    spec = importlib.util.spec_from_file_location(
        "torchscale_reference", Path(__file__).with_name("torchscale_reference.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def answers(recipe: ModuleType) -> dict[str, Any]:
    """What it wrote."""
    return json.loads(recipe.FILE.read_text())


@pytest.fixture(scope="session")
def small(recipe: ModuleType) -> Beit3Config:
    """Sizes of the model that was asked."""
    return Beit3Config(
        width=recipe.WIDTH,
        layers=recipe.LAYERS,
        hidden=recipe.HIDDEN,
        image_size=32,
        patch_size=recipe.PATCH,
        vocabulary=recipe.VOCABULARY,
        text_positions=recipe.TEXT_POSITIONS,
    )


@pytest.fixture
def weights(recipe: ModuleType, small: Beit3Config) -> dict[str, Tensor]:
    """The recipe's weights at 32 pixels a side."""
    with torch.device("meta"):
        empty = Beit3Retrieval(small).state_dict()
    return {name: recipe.weight(name, tuple(value.shape)) for name, value in empty.items()}


@pytest.fixture
def checkpoint(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    """A checkpoint of the released layout."""
    torch.save({"model": weights}, tmp_path / "small.pth")
    return tmp_path / "small.pth"


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model of 26 pieces, learnt from a few lines."""
    folder = tmp_path_factory.mktemp("vocabulary")
    lines = ["a red square on a blue square", "the dog runs on the beach", "two dogs and a red ball"] * 4
    (folder / "lines.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "small"), vocab_size=26, minloglevel=2
    )
    return (folder / "small.model").rename(folder / "small.spm")
