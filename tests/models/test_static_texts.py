"""The text side of a student with a table of words, without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distilvl.models import load_encoder
from distilvl.models.encoder import Encoder
from distilvl.models.static_texts import static_texts

TEXTS = ["a red box", "", "0.jpg", "zyx \u2581 [TEXT] 'quoted', naïve", "two dogs " * 200, "\U0001f600"]


def test_its_embeddings_are_the_students(static_folder: Path) -> None:
    model = static_texts(str(static_folder))
    assert model is not None
    quick, whole = Encoder(model), load_encoder(static_folder)
    np.testing.assert_allclose(quick.encode_texts(TEXTS), whole.encode_texts(TEXTS), atol=1e-6)
    assert (quick.info.name, quick.info.revision, quick.info.dim) == (
        whole.info.name, whole.info.revision, whole.info.dim
    )  # fmt: skip


def test_other_models_have_none(static_folder: Path, tmp_path: Path) -> None:
    assert static_texts("demo") is None
    assert static_texts("") is None
    assert static_texts(f"{static_folder}?dtype=bfloat16") is None
    assert static_texts(str(tmp_path)) is None
    (static_folder / "text_0_StaticEmbedding" / "model.safetensors").write_bytes(b"damaged")
    assert static_texts(str(static_folder)) is None
