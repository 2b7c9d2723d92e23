"""What a student's texts find where some photographs have the teacher's embeddings, and the others the student's.

    python benchmarks/mixed_index.py --model runs/frozen --data flickr8k [--split val] [--features STORE] [--seed 0]

RSUM, and text to image R@1, R@5 and R@10 of all captions, of those whose photograph has the teacher's embedding, and of
the others; and how many of the first ten photographs have the teacher's. The seed chooses the photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distilvl.data import load_dataset
from distilvl.evaluation.encode import encode_any, teacher_features
from distilvl.evaluation.score import rank_gallery, score_ranks

SHARES = (0.0, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="run folder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--features", type=Path, help="the run's own by default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    gallery = load_dataset(arguments.data).split(arguments.split)
    _, student = encode_any(arguments.model, gallery, False)
    teacher = teacher_features(student, arguments.model, arguments.features)
    if teacher is None:
        raise SystemExit("the run's store is not here: name one with --features")
    ours, theirs, texts = (_normalised(rows) for rows in (student.images, teacher[0], student.texts))
    owner = np.asarray(student.dataset.caption_image)
    order = np.random.default_rng(arguments.seed).permutation(len(ours))
    for share in SHARES:
        chosen = order < share * len(ours)
        images = np.where(chosen[:, None], theirs, ours)
        ranks = rank_gallery(images, texts, owner, student.groups)
        parts = (np.full(len(owner), True), chosen[owner], ~chosen[owner])
        recalls = [" ".join(f"{100 * np.mean(ranks.text[part] <= k):.1f}" for k in (1, 5, 10)) if part.any() else "-"
                   for part in parts]  # fmt: skip
        first = np.argsort(-texts @ images.T, axis=1)[:, :10]
        found = f"all {recalls[0]}, teacher's {recalls[1]}, student's {recalls[2]}"
        most = f"{100 * chosen[first].mean():.0f} % of first tens"
        print(f"{100 * share:.0f} % teacher's: RSUM {score_ranks(ranks).rsum:.1f}; text to image, {found}; {most}")


def _normalised(rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
    wide = np.asarray(rows, dtype=np.float32)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


if __name__ == "__main__":
    main()
