"""A student in MTEB: a retrieval task of your own, from captions to pictures.

    pip install mteb
    python examples/mteb_retrieval.py STUDENT PHOTOS

PHOTOS has pictures and `captions.csv` with the columns `image` and `caption`. The hub is not asked: what is
evaluated is this folder. MTEB's own tasks run with the same `mteb.evaluate(model, tasks)`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, Image
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer


class CaptionsToPictures(AbsTaskRetrieval):
    """Find a caption's picture among all pictures of a folder."""

    photos = Path()
    metadata = TaskMetadata(
        name="CaptionsToPictures",
        description="Captions of a folder of photographs, and their pictures.",
        dataset={"path": "local", "revision": "1"},
        type="Any2AnyRetrieval",
        category="t2i",
        modalities=["text", "image"],
        eval_langs=["eng-Latn"],
        main_score="recall_at_1",
    )

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read `captions.csv`; nothing is fetched."""
        with (self.photos / "captions.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = sorted({row["image"] for row in rows})
        pictures = Dataset.from_dict({"id": names, "image": [str(self.photos / name) for name in names]})
        queries = {"id": [f"q{k}" for k in range(len(rows))], "text": [row["caption"] for row in rows]}
        split = {
            "corpus": pictures.cast_column("image", Image()),
            "queries": Dataset.from_dict(queries),
            "relevant_docs": {f"q{k}": {row["image"]: 1} for k, row in enumerate(rows)},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def evaluate(student: str, photos: str) -> dict[str, float]:
    """Recall, 0 to 1, at 1, 5 and 10."""
    task = CaptionsToPictures()
    task.photos = Path(photos)
    model = SentenceTransformerEncoderWrapper(SentenceTransformer(student, device="cpu"))
    # MTEB takes a SentenceTransformer for one of texts unless it is told otherwise.
    known = {"name": "distilvl/student", "revision": "1", "modalities": ["text", "image"]}
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update=known)
    found = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    scores = found.task_results[0].scores["test"][0]
    return {name: float(scores[name]) for name in ("recall_at_1", "recall_at_5", "recall_at_10")}


if __name__ == "__main__":
    for name, value in evaluate(sys.argv[1], sys.argv[2]).items():
        print(f"{name}: {value:.3f}")  # noqa: T201
