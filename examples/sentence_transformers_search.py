"""A student in sentence-transformers: which picture fits a text best.

    python examples/sentence_transformers_search.py STUDENT PHOTOS "a dog in the snow"

STUDENT is the `student` folder of a run, PHOTOS a folder of JPEG and PNG files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from sentence_transformers import SentenceTransformer, util


def search(student: str, photos: str, text: str, top: int = 5) -> list[tuple[float, Path]]:
    """Cosine and path of the pictures that fit best, best first."""
    model = SentenceTransformer(student)
    paths = sorted(path for path in Path(photos).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = model.encode([Image.open(path).convert("RGB") for path in paths], convert_to_tensor=True)
    query = model.encode([text], convert_to_tensor=True)
    hits = util.semantic_search(query, images, top_k=top)[0]
    return [(float(hit["score"]), paths[int(hit["corpus_id"])]) for hit in hits]


if __name__ == "__main__":
    for score, path in search(*sys.argv[1:4]):
        print(f"{score:.3f}  {path}")  # noqa: T201
