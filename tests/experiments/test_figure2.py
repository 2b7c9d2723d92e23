from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.experiments.figure2 import IMAGES_DRAWN, draw_figure2


def space(n: int = 40, per_image: int = 2, gap: float = 1.0, seed: int = 0) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    images = random.standard_normal((n, 6))
    texts = images.repeat(per_image, axis=0) + 0.1 * random.standard_normal((n * per_image, 6))
    images[:, 0] += gap
    texts[:, 0] -= gap
    return images, texts, np.arange(n).repeat(per_image)


def test_numbers_by_hand(tmp_path: Path) -> None:
    """Two images on axes 1 and 2; texts of any length on axes 1, 3 and 3.

    Means (1/2, 1/2, 0) and (1/3, 0, 2/3): gap^2 = 1/36 + 9/36 + 16/36 = 26/36. Cosines to own images: 1, 0, 0;
    to the other image: text 0 with image 1, 0; text 1 with image 0, 0; text 2 with image 0, 0.
    """
    images = np.array([[1.0, 0, 0], [0, 2, 0]])
    texts = np.array([[3.0, 0, 0], [0, 0, 1], [0, 0, 5]])
    found = draw_figure2({"teacher": (images, texts, [0, 1, 1])}, tmp_path)["teacher"]
    assert found["modality_gap"] == pytest.approx(26**0.5 / 6, rel=1e-12)
    assert found["matching_cosine"] == pytest.approx(1 / 3, rel=1e-12)
    assert found["other_cosine"] == pytest.approx(0, abs=1e-12)
    assert (found["images"], found["texts"], found["pairs_drawn"]) == (2, 3, 2)


def test_other_cosine_leaves_own_images_out(tmp_path: Path) -> None:
    images, texts, owner = space(n=9)
    found = draw_figure2({"a": (images, texts, owner)}, tmp_path)["a"]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts)]
    pairs = [(float(unit[1][k] @ unit[0][i]), owner[k] == i) for k in range(len(texts)) for i in range(9)]
    assert found["matching_cosine"] == pytest.approx(np.mean([cosine for cosine, own in pairs if own]), rel=1e-12)
    assert found["other_cosine"] == pytest.approx(np.mean([cosine for cosine, own in pairs if not own]), rel=1e-12)


def test_explained_variance_of_drawn_rows(tmp_path: Path) -> None:
    images, texts, owner = space(n=30, per_image=1)
    found = draw_figure2({"a": (images, texts, owner)}, tmp_path)["a"]
    rows = np.concatenate([images, texts])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1]
    assert found["explained_variance"] == pytest.approx(eigenvalues[:3] / eigenvalues.sum(), rel=1e-9)


def test_files_are_written_and_repeatable(tmp_path: Path) -> None:
    spaces = {"teacher": space(), "student": space(gap=0.2, seed=1)}
    first, second = tmp_path / "new" / "first", tmp_path / "second"
    numbers = draw_figure2(spaces, first)
    assert draw_figure2(spaces, second) == numbers
    for name in ("figure2.png", "figure2.svg", "figure2.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert json.loads((first / "figure2.json").read_text()) == json.loads(json.dumps(numbers))
    with Image.open(first / "figure2.png") as picture:
        assert min(picture.size) > 1000
    assert numbers["teacher"]["modality_gap"] > numbers["student"]["modality_gap"]


def test_at_most_500_pairs_are_drawn_and_the_seed_chooses_them(tmp_path: Path) -> None:
    big = space(n=IMAGES_DRAWN + 100, per_image=1)
    found = draw_figure2({"a": big}, tmp_path)["a"]
    other = draw_figure2({"a": big}, tmp_path, seed=1)["a"]
    assert found["pairs_drawn"] == IMAGES_DRAWN
    assert found["modality_gap"] == other["modality_gap"]  # over all rows
    assert found["explained_variance"] != other["explained_variance"]  # of the rows drawn


def test_spaces_without_a_gap_can_be_drawn(tmp_path: Path) -> None:
    images, _, _ = space(n=5, per_image=1)
    found = draw_figure2({"same": (images, images, np.arange(5))}, tmp_path)["same"]
    assert found["modality_gap"] == 0
    assert found["matching_cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: np.ones((40, 5))}, "make no space"),
        ({2: np.arange(79)}, "make no space"),
        ({2: np.arange(80.0)}, "make no space"),
        ({2: np.arange(80)}, "points outside"),
        ({0: np.zeros((40, 6))}, "row is zero"),
        ({1: np.full((80, 6), np.nan)}, "row is zero, infinite"),
    ],
)
def test_bad_input_is_named(changed: dict[int, Any], message: str, tmp_path: Path) -> None:
    parts = [changed.get(k, part) for k, part in enumerate(space())]
    with pytest.raises(DistilvlError, match=f"student: .*{message}"):
        draw_figure2({"student": tuple(parts)}, tmp_path)  # type: ignore[dict-item]


def test_no_space(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="no space to draw"):
        draw_figure2({}, tmp_path)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DistilvlError, match=r"needs the package matplotlib.*pip install 'distilvl\[report\]'"):
        draw_figure2({"a": space()}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
