"""The closed-form student: heads and the text table are ridge regressions of teacher features.

    image head   z^v = W x + b      fitted to u^v + beta mean(u^t)      x: pooled outputs of the frozen image tower
    text table   z^t = sum_k T_k    fitted to u^t + alpha u^v           a row T_k for each token k of a text

alpha and beta mix in the features of an image's own captions, and of a caption's own image; without pairs they are 0.
Candidates are solved on the sums of all but some held-out items, scored on these, and the best one is solved again on
the sums of all (`training.ridge`): the data are read once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse

from distilvl.config import ClosedFormConfig
from distilvl.evaluation.agreement import agreement
from distilvl.evaluation.score import score
from distilvl.training.ridge import Affine, Columns, Doubles, RidgeSums, solve_affine, solve_linear

Floats = npt.NDArray[np.float32]
Rate = Callable[[Floats], float]
"""Embeddings of the held-out items, (h, D), to their score."""


@dataclass(frozen=True)
class Gathered:
    """What one pass over the images, or the texts, gives: sums, and the held-out items themselves.

    Targets are an item's own features and, of a pair, its partners' mean beside them, (n, 2 D); without pairs (n, D).
    """

    fitted: RidgeSums  # of all but the held-out items
    rows: Any  # x of the held-out items, (h, p) float32, or sparse
    mirrored: Floats | None  # x of their mirror images, where these are fitted, too
    targets: Floats  # (h, q)
    keys: list[bytes]  # (h,) of each image; of each text its image's key, or its own without pairs
    crops: RidgeSums | None = None  # of crops of the held-out images, where crops are fitted, too

    def all(self) -> RidgeSums:
        """The sums of all items."""
        sums = self.fitted + (self.crops or RidgeSums.zeros(*self.fitted.xu.shape))  # a copy
        for rows in (self.rows, self.mirrored):
            if rows is not None:
                sums.add(rows, self.targets)
        return sums


@dataclass(frozen=True)
class Gallery:
    """The held-out items that candidates are scored on.

    With pairs the score is RSUM, 0 to 600. Without, it is the overlap of what the student finds with what the teacher
    finds, in percent of the first ten of each list, both directions together: 0 to 200.
    """

    images: Floats  # (n, D), the teacher's
    texts: Floats  # (m, D), the teacher's
    owner: npt.NDArray[np.int64] | None  # (m,) row of each text's image; none without pairs

    @classmethod
    def of(cls, images: Gathered, texts: Gathered, dim: int) -> "Gallery":
        """All held-out items of one pass over each."""
        row = {key: k for k, key in enumerate(images.keys)}
        paired = texts.targets.shape[1] > dim
        owner = np.array([row[key] for key in texts.keys]) if paired else None
        return cls(images.targets[:, :dim], texts.targets[:, :dim], owner)

    def of_images(self, embeddings: Floats, texts: Floats) -> float:
        """Of the student's images: with the student's `texts` where there are pairs, else with the teacher's."""
        if self.owner is None:
            return self._overlap((embeddings, self.texts))
        return score(embeddings, texts, self.owner).rsum

    def of_texts(self, embeddings: Floats) -> float:
        """Of the student's texts with the teacher's images."""
        if self.owner is None:
            return self._overlap((self.images, embeddings))
        return score(self.images, embeddings, self.owner).rsum

    def _overlap(self, student: tuple[Floats, Floats]) -> float:
        return 100 * sum(agreement(student, (self.images, self.texts)).overlap)


@dataclass(frozen=True)
class Choice:
    """The best candidate."""

    settings: Mapping[str, Any]
    rsum: float  # on the held-out items; without pairs the overlap, see `Gallery`
    embeddings: Floats  # what it made of these, (h, D)

    def as_dict(self) -> dict[str, Any]:
        """Settings and score, as a run's result has them."""
        measure = "held_out_overlap" if self.settings["partner"] is None else "held_out_rsum"
        return {**self.settings, measure: round(self.rsum, 2)}


def fit_head(
    gathered: Gathered, candidates: Sequence[tuple[Mapping[str, Any], Columns]], config: ClosedFormConfig,
    weights: Sequence[float], rate: Rate, dim: int,
) -> tuple[Affine, Columns, Choice]:  # fmt: skip
    """An affine head, of the columns it takes, and what was chosen.

    Args:
        candidates: columns of x that a head may take, each with the settings that stand for them.
        weights: of the partner's features among the targets, alpha or beta; ignored without pairs.
        rate: embeddings of the held-out items (h, D) to a score.
    """
    best: tuple[Choice, Columns] | None = None
    for (settings, columns), weight in product(candidates, _weights(weights, gathered, dim)):
        mixed = _mixed(gathered.fitted.columns(columns), weight)
        for ridge, found in zip(config.ridges, solve_affine(mixed, config.ridges, config.scale), strict=True):
            embeddings = found(gathered.rows[:, columns])
            rsum = rate(embeddings)
            if best is None or rsum > best[0].rsum:
                best = Choice({**settings, "ridge": ridge, "partner": weight}, rsum, embeddings), columns
    assert best is not None  # no list of candidates is empty
    (choice, columns), sums = best, gathered.all()
    whole = _mixed(sums.columns(columns), choice.settings["partner"])
    return solve_affine(whole, [choice.settings["ridge"]], config.scale)[0], columns, choice


def fit_table(
    gathered: Gathered, is_pair: npt.NDArray[np.bool_], rank: int, config: ClosedFormConfig, rate: Rate, dim: int
) -> tuple[Doubles, Doubles, Choice]:
    """A static text tower: what each part of a text adds, (P, r), the head (D, r) of the sum, and what was chosen.

    Args:
        gathered: of texts as counts of parts, (n, P) sparse: words, and for each word pair the difference it makes.
        is_pair: (P,) which parts are such differences. They have a ridge of their own, since most pairs are rare.
        rank: r.
        rate: as of `fit_head`.
    """
    choice, sums = choose_table(gathered, is_pair, config, rate, dim), gathered.all()
    return *_table(sums, is_pair, choice, rank), choice


def choose_table(
    gathered: Gathered, is_pair: npt.NDArray[np.bool_], config: ClosedFormConfig, rate: Rate, dim: int
) -> Choice:
    """The ridges of `fit_table`, chosen at full rank; its arguments are those."""
    best: Choice | None = None
    pair_ridges: Sequence[float | None] = config.pair_ridges if is_pair.any() else [None]
    for ridge, pair_ridge in product(config.text_ridges, pair_ridges):
        settings = {"ridge": ridge, "pair_ridge": pair_ridge}
        solved = solve_linear(gathered.fitted, _penalty(is_pair, settings))
        for weight in _weights(config.alphas, gathered, dim):
            embeddings = np.asarray(gathered.rows @ _mix(solved, weight, axis=1), dtype=np.float32)
            rsum = rate(embeddings)
            if best is None or rsum > best.rsum:
                best = Choice({**settings, "partner": weight}, rsum, embeddings)
    assert best is not None
    return best


def at_rank(gathered: Gathered, is_pair: npt.NDArray[np.bool_], choice: Choice, rank: int, rate: Rate) -> Choice:
    """`choice` of `choose_table` with the embeddings and the score that it has once the table is cut to `rank`."""
    rows, axes = _table(gathered.fitted, is_pair, choice, rank)
    embeddings = np.asarray(gathered.rows @ rows @ axes.T, dtype=np.float32)
    return replace(choice, rsum=rate(embeddings), embeddings=embeddings)


def _table(sums: RidgeSums, is_pair: npt.NDArray[np.bool_], choice: Choice, rank: int) -> tuple[Doubles, Doubles]:
    """Rows (P, r) and axes (D, r) of the table with the chosen settings."""
    solved = solve_linear(sums, _penalty(is_pair, choice.settings))
    return cut_to_rank(_mix(solved, choice.settings["partner"], axis=1), sums.xx, rank)


def _penalty(is_pair: npt.NDArray[np.bool_], settings: Mapping[str, Any]) -> Doubles:
    ridge, pair_ridge = settings["ridge"], settings["pair_ridge"]
    return np.asarray(np.where(is_pair, ridge if pair_ridge is None else pair_ridge, ridge))


def cut_to_rank(table: Doubles, gram: Doubles, rank: int) -> tuple[Doubles, Doubles]:
    """(P, r) and (D, r), orthonormal columns, whose product is nearest to `table` (P, D), in squares over all texts.

    `gram` (P, P) is the sum of x^T x over the texts, as counts of parts. Eckart & Young (1936), in that metric.
    """
    _, axes = scipy.linalg.eigh(table.T @ gram @ table)
    head = axes[:, ::-1][:, :rank]
    return table @ head, head


def _weights(weights: Sequence[float], gathered: Gathered, dim: int) -> Sequence[float | None]:
    return weights if gathered.targets.shape[1] > dim else [None]


def _mixed(sums: RidgeSums, weight: float | None) -> RidgeSums:
    """With own + weight x partner's features as the target; none where there are no partners."""
    return sums if weight is None else replace(sums, u=_mix(sums.u, weight), xu=_mix(sums.xu, weight, axis=1))


def _mix(targets: Doubles, weight: float | None, axis: int = 0) -> Doubles:
    if weight is None:
        return targets
    own, partner = np.split(targets, 2, axis=axis)
    return np.asarray(own + weight * partner)
