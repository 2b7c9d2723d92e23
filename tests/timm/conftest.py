"""Towers of timm. The package and its torchvision are not among the development packages: `make test` sees to them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distilvl.config import StudentConfig
from distilvl.students import DualEncoder, build_student

collect_ignore_glob = [] if find_spec("timm") else ["test_*.py"]

SHARED = Path(__file__).parents[3] / "shared" / "students"
SMALL = "test_efficientnet"  # timm's own for tests, 0.1 M parameters
TEXT: dict[str, Any] = {
    "config": {
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 48,
    },
    "vocabulary": 120, "max_length": 48, "pooling": "mean",
}  # fmt: skip
CAPTIONS = ("a red box on a table", "two dogs beside a word")
Make = Callable[..., DualEncoder]


@pytest.fixture
def lite() -> str:
    """The folder of a pretrained EfficientNet-Lite0."""
    folder = SHARED / "efficientnet-lite0"
    if not folder.is_dir():
        pytest.skip("the pretrained networks are not here; small random ones are tested instead")
    return str(folder)


@pytest.fixture
def student() -> Make:
    """A student whose image tower is a random timm network, or one with the fields that are given."""

    def make(architecture: str = SMALL, dim: int = 12, **image: Any) -> DualEncoder:
        fields = {"config": timm_config(architecture)} if "model" not in image else {}
        chosen = {**fields, "size": 64, "pooling": "stages", **image}
        config = StudentConfig.model_validate({"image": chosen, "text": TEXT})
        return DualEncoder(build_student(config, dim, CAPTIONS)).eval()

    return make


@pytest.fixture
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)) for shape in ((70, 90, 3), (64, 40, 3))]


def timm_config(architecture: str) -> dict[str, Any]:
    return {"model_type": "timm_wrapper", "architecture": architecture, "num_labels": 0, "label_names": []}
