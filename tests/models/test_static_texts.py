"""The text side of a student with a table of words, without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def _say(file: Path, change: Callable[[Any], None]) -> None:
    said = json.loads(file.read_text(encoding="utf-8"))
    change(said)
    file.write_text(json.dumps(said), encoding="utf-8")


@pytest.mark.parametrize("what", ["another prompt", "no default prompt", "a module behind the routes"])
def test_a_student_that_was_changed_by_hand_has_none(static_folder: Path, what: str) -> None:
    """Its weights are the same, so that neither name nor revision tells."""
    said, modules = static_folder / "config_sentence_transformers.json", static_folder / "modules.json"
    if what == "another prompt":
        _say(said, lambda values: values["prompts"].update(text="a photo of "))
    elif what == "no default prompt":
        _say(said, lambda values: values.update(default_prompt_name=None))
    else:
        more = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        _say(modules, lambda values: values.append(more))
    assert static_texts(str(static_folder)) is None
