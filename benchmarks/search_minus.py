"""How well "X without Y" finds pictures of X that do not show Y: precision at 10 of several ways to take Y away.

    python benchmarks/search_minus.py --data DATA --features STORE --model STUDENT [--split val]

Pictures have the stored embeddings of the teacher, words those of the student. A picture shows a thing where any of its
captions has the word. Of the words below, pairs are taken of which at least 20 pictures show X without Y, and at least
15 % of those with X show Y.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from itertools import permutations

import numpy as np
import numpy.typing as npt

from distilvl.data import load_dataset
from distilvl.features import FeatureStore
from distilvl.io.hashes import image_key
from distilvl.models import load_encoder

Rows = npt.NDArray[np.float32]
WORDS = [
    "dog",
    "man",
    "woman",
    "child",
    "boy",
    "girl",
    "people",
    "water",
    "grass",
    "snow",
    "beach",
    "ball",
    "bike",
    "street",
    "car",
    "tree",
    "rock",
    "mountain",
    "red",
    "blue",
    "black",
    "white",
    "crowd",
    "hat",
    "shirt",
    "playground",
    "pool",
    "skateboard",
    "horse",
    "field",
]
ALSO = {
    "people": {"people", "crowd", "group"}, "bike": {"bike", "bikes", "bicycle"}, "man": {"man", "men"},
    "woman": {"woman", "women"}, "child": {"child", "children", "kid", "kids"},
}  # fmt: skip


def ways(scores: dict[str, Rows]) -> dict[str, Callable[[str, str], Rows]]:
    """By name: scores of all pictures for X without Y. Against the pictures of the index, z are standard scores."""
    z = {word: (one - one.mean()) / one.std() for word, one in scores.items()}
    found: dict[str, Callable[[str, str], Rows]] = {"X alone": lambda x, _: scores[x]}
    for share in (0.3, 0.5, 0.7, 1.0):
        found[f"X - {share:g} Y"] = lambda x, y, share=share: scores[x] - share * scores[y]
    found["z(X) - 0.5 z(Y)"] = lambda x, y: z[x] - 0.5 * z[y]
    for most in (0.0, 1.0):
        found[f"only pictures with z(Y) < {most:g}"] = lambda x, y, most=most: np.where(z[y] < most, z[x], -9)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--features", "--model"):
        parser.add_argument(name, required=True)
    parser.add_argument("--split", default="val")
    arguments = parser.parse_args()
    data = load_dataset(arguments.data).split(arguments.split)
    store = FeatureStore.open(arguments.features)
    pictures = store.images([image_key(record.image.read()) for record in data]).astype(np.float32)
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    texts = load_encoder(arguments.model).encode_texts(WORDS)
    scores = {word: pictures @ text for word, text in zip(WORDS, texts, strict=True)}
    said = [set(re.findall("[a-z]+", " ".join(record.captions).lower())) for record in data]
    shows = {word: np.array([bool(one & ALSO.get(word, {word, f"{word}s"})) for one in said]) for word in WORDS}
    pairs = [
        (x, y) for x, y in permutations(WORDS, 2)
        if (shows[x] & ~shows[y]).sum() >= 20 and (shows[x] & shows[y]).sum() >= 0.15 * shows[x].sum()
    ]  # fmt: skip
    print(f"{len(pairs)} pairs, {len(pictures)} pictures; precision at 10, %")
    for name, way in ways(scores).items():
        right = [(shows[x] & ~shows[y])[np.argsort(-way(x, y))[:10]].mean() for x, y in pairs]
        print(f"{name:32s} {100 * np.mean(right):.1f}")


if __name__ == "__main__":
    main()
