"""How much a student agrees with its teacher: what they retrieve, how they order it, where their features lie."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.evaluation.embeddings import Embeddings, checked_embeddings
from distilvl.evaluation.score import Score

DEPTH = 10
_BLOCK = 2**22
RANKED_QUERIES = 500  # whose whole lists are ranked, evenly spaced: sorting all lists of COCO 5K takes minutes

Pair: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # image features (n, D) and text features (m, D)


@dataclass(frozen=True, slots=True)
class CrossScores:
    """Retrieval between a student's embeddings of one modality and its teacher's of the other, in their one space.

    The side whose exchange for the teacher's raises the student's own score more is the side on which it loses more.
    """

    student_images_teacher_texts: Score
    teacher_images_student_texts: Score

    def as_dict(self) -> dict[str, Any]:
        """For JSON, both scores by name."""
        return {name: getattr(self, name).as_dict() for name in self.__slots__}


def cross_scores(
    student: Pair, teacher: Pair, scored: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Score]
) -> CrossScores | None:
    """Both cross scores of the same items, each by `scored(images, texts)`; none where the dimensions differ."""
    if student[0].shape[1] != teacher[0].shape[1]:
        return None
    return CrossScores(scored(student[0], teacher[1]), scored(teacher[0], student[1]))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Student against teacher on the same items; pairs are of directions, of modalities, or of student and teacher."""

    overlap: tuple[float, float]  # mean share of items that both lists of the first 10 (or of all) hold, 0 to 1
    # Spearman's coefficient between both models' similarities of a query to all items, -1 to 1, mean over at most
    # `RANKED_QUERIES` evenly spaced queries.
    rank_correlation: tuple[float, float]
    cka: tuple[float, float]  # linear CKA (Kornblith et al., ICML 2019) of the features, 0 to 1
    cosine: tuple[float, float] | None  # mean of both models' features of an item; none where dimensions differ
    modality_gap: tuple[float, float]  # distance of the mean unit features (Liang et al., NeurIPS 2022), 0 to 2

    def as_dict(self) -> dict[str, Any]:
        """For JSON, the two values of each by name."""
        ways, kinds = ("image_to_text", "text_to_image"), ("image", "text")
        out = {"overlap_at_10": dict(zip(ways, self.overlap, strict=True))}
        out["rank_correlation"] = dict(zip(ways, self.rank_correlation, strict=True))
        out["cka"] = dict(zip(kinds, self.cka, strict=True))
        out["modality_gap"] = dict(zip(("student", "teacher"), self.modality_gap, strict=True))
        return out if self.cosine is None else {**out, "cosine": dict(zip(kinds, self.cosine, strict=True))}


def agreement(student: tuple[npt.ArrayLike, npt.ArrayLike], teacher: tuple[npt.ArrayLike, npt.ArrayLike]) -> Agreement:
    """Compare two models by their image features (n, D) and text features (m, D), n and m at least 2; D may differ.

    `DistilvlError` for features that `score` refuses, or other numbers of items.
    """
    kinds = ("image", "text")
    s_image, s_text = (checked_embeddings(student[k], f"{kind} features") for k, kind in enumerate(kinds))
    u_image, u_text = (checked_embeddings(teacher[k], f"teacher {kind} features") for k, kind in enumerate(kinds))
    if len(s_image) != len(u_image) or len(s_text) != len(u_text) or min(len(s_image), len(s_text)) < 2:
        ours, theirs = f"{len(s_image)} images and {len(s_text)} texts", f"{len(u_image)} and {len(u_text)}"
        problem = f"student features of {ours} cannot be compared with teacher features of {theirs}."
        raise DistilvlError(problem, "Give both models' features of the same items, at least two of each kind.")
    i2t, t2i = _lists((s_image, s_text), (u_image, u_text)), _lists((s_text, s_image), (u_text, u_image))
    cka = linear_cka(s_image, u_image), linear_cka(s_text, u_text)
    cosine = (_mean_cosine(s_image, u_image), _mean_cosine(s_text, u_text)) if s_image.dim == u_image.dim else None
    gap = modality_gap(s_image, s_text), modality_gap(u_image, u_text)
    return Agreement((i2t[0], t2i[0]), (i2t[1], t2i[1]), cka, cosine, gap)


def linear_cka(x: Embeddings, y: Embeddings) -> float:
    """||Yc' Xc||^2 / (||Xc' Xc|| ||Yc' Yc||) in Frobenius norms; Xc, Yc: L2-normalised features less their means."""
    a, b = x.exact(), y.exact()
    a -= a.mean(axis=0)
    b -= b.mean(axis=0)
    return float(np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def modality_gap(images: Embeddings, texts: Embeddings) -> float:
    """Distance of the two mean unit features."""
    centres = [rows.unit.mean(axis=0, dtype=np.float64) for rows in (images, texts)]
    return float(np.linalg.norm(centres[0] - centres[1]))


def _mean_cosine(a: Embeddings, b: Embeddings) -> float:
    return float(np.mean(np.einsum("nd,nd->n", a.exact(), b.exact())))


def _lists(student: tuple[Embeddings, Embeddings], teacher: tuple[Embeddings, Embeddings]) -> tuple[float, float]:
    """Mean overlap of the first 10, and mean rank correlation, of (queries, items)."""
    queries, items = len(student[0]), len(student[1])
    depth = min(DEPTH, items)
    ranked = set(np.unique(np.linspace(0, queries - 1, min(queries, RANKED_QUERIES)).astype(int)).tolist())
    rows = max(1, _BLOCK // items)
    common, correlations = 0, []
    for start in range(0, queries, rows):
        ours, theirs = (model[0].unit[start : start + rows] @ model[1].unit.T for model in (student, teacher))
        first = [np.argpartition(-block, depth - 1, axis=1)[:, :depth] for block in (ours, theirs)]
        common += sum(len(np.intersect1d(a, b)) for a, b in zip(*first, strict=True))
        for row in ranked.intersection(range(start, start + len(ours))):
            correlations.append(_spearman(ours[row - start], theirs[row - start]))
    return common / (queries * depth), float(np.mean(correlations))


def _spearman(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Pearson's coefficient of the ranks, ties at their mean rank; 0 where one side orders nothing."""
    from scipy.stats import rankdata  # slow to import, and not needed for scoring

    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / lengths if lengths else 0.0
