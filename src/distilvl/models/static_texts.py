"""The text side of a student with a table of words, in NumPy: a query in words needs no PyTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.students.folder import has_student_routes, student_folder
from distilvl.teachers.base import name_and_revision

_BEFORE = " "  # as a plain SentenceTransformer puts it before each text of such a student: `students.static.PROMPTS`
_KINDS = ("StaticEmbedding", "Dense")  # of the modules of a text route
_MODULES = (["Router"], ["Router", "Normalize"])


class StaticTexts:
    """A student of which texts alone can be encoded; name, revision and embeddings are the student's own.

    An embedding is the mean of the rows of a text's tokens, times the head W (D, r).
    """

    def __init__(self, folder: Path, table: Path, head: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.name, self.revision = name_and_revision(str(folder))
        self._tokenizer: Any = Tokenizer.from_file(str(table / "tokenizer.json"))
        self._table = load_file(table / "model.safetensors")["embedding.weight"].astype(np.float32)
        self._head = load_file(head / "model.safetensors")["linear.weight"].astype(np.float32)
        self.dim = len(self._head)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Embeddings (n, D) of texts, not L2-normalised."""
        found = self._tokenizer.encode_batch([_BEFORE + text for text in texts], add_special_tokens=False)
        means = np.stack([self._table[one.ids].mean(axis=0, dtype=np.float32) for one in found])
        return np.asarray(means @ self._head.T)

    def encode_images(self, _: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """Not of this side."""
        raise TypeError(f"{self.name} was opened for texts alone")


def static_texts(spec: str) -> StaticTexts | None:
    """Those of the student that `spec` names, a folder; none where it is no student of that kind, or is damaged."""
    try:
        folder = student_folder(spec)
        if not (spec and has_student_routes(folder)):
            return None
        route = json.loads((folder / "router_config.json").read_text(encoding="utf-8"))
        modules: list[str] = route["structure"]["text"]
        head = json.loads((folder / modules[-1] / "config.json").read_text(encoding="utf-8"))
        kinds = tuple(route["types"][name].rpartition(".")[2] for name in modules)
        behind = [one["type"].rpartition(".")[2] for one in json.loads((folder / "modules.json").read_text("utf-8"))]
        said = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        plain = kinds == _KINDS and not head["bias"] and head["activation_function"].endswith("Identity")
        # Changed by hand it may say something else, with the same weights and so the same revision.
        plain &= behind in _MODULES and said["prompts"][said["default_prompt_name"]] == _BEFORE
        return StaticTexts(folder, *(folder / name for name in modules)) if plain else None
    except Exception:  # whatever it is, loading the whole student tells it
        return None
