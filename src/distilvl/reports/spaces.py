"""Feature spaces of teacher and students: the points of the 3-D viewer, and two flat views as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from distilvl.experiments.figure2 import PAIRS_DRAWN, checked_space, project_space, space_numbers
from distilvl.reports.gallery import Gallery, View
from distilvl.reports.svg import Scale, open_svg

Floats = npt.NDArray[np.float64]

MOST_STUDENTS = 3
_SIDE, _MARGIN = 300, 34
_GAP_HEIGHT, _BINS = 116, 48


@dataclass(frozen=True)
class Space:
    """One space, projected onto its own three principal components.

    Attributes:
        name: of the model.
        images, texts: (k, 3); row i of both belong together.
        image_mean, text_mean: (3,) where the means of all rows fall.
        numbers: as `SpaceNumbers`: modality gap, mean cosines, explained variance, counts.
        images_along, texts_along: all rows on the line through both means.
        reach: half the side of the box that holds the drawn points of all spaces of the page.
    """

    name: str
    images: Floats
    texts: Floats
    image_mean: Floats
    text_mean: Floats
    numbers: dict[str, Any]
    images_along: Floats
    texts_along: Floats
    reach: float

    @property
    def text(self) -> str:
        """What the pictures show, for those who cannot see them."""
        n = self.numbers
        shares = sum(n["explained_variance"])
        return (
            f"{self.name}: {n['pairs_drawn']} images and as many captions on three principal components, which hold "
            f"{100 * shares:.0f} % of their variance. Modality gap {n['modality_gap']:.2f}; mean cosine of matching "
            f"pairs {n['matching_cosine']:.2f}, of others {n['other_cosine']:.2f}."
        )

    def points(self) -> dict[str, Any]:
        """For the viewer: coordinates in [-1, 1], three decimals."""
        groups = {"images": self.images, "texts": self.texts, "means": np.stack([self.image_mean, self.text_mean])}
        return {name: np.round(rows / self.reach, 3).tolist() for name, rows in groups.items()}


def build_spaces(gallery: Gallery) -> list[Space]:
    """The spaces of the first three students, after their own teachers'; none where there is too little to project."""
    views: Sequence[View] = (*gallery.teachers_of(MOST_STUDENTS), *gallery.students[:MOST_STUDENTS])
    if len(gallery.dataset) < 2 or any(view.images.shape[1] < 3 for view in views):
        return []
    projected = []
    for view in views:
        rows = checked_space(view.name, (view.images, view.texts, gallery.owner))
        points = project_space(*rows, seed=0)
        projected.append((view.name, points, asdict(space_numbers(*rows, points))))
    reach = 1.05 * max(float(np.abs(np.concatenate([p.images, p.texts])).max()) for _, p, _ in projected)
    return [
        Space(
            name, p.images, p.texts, p.image_mean, p.text_mean, numbers, p.images_along, p.texts_along, reach
        )
        for name, p, numbers in projected
    ]  # fmt: skip


def flat_view(space: Space, name: str) -> Markup:
    """PC1 and PC2: all points, some matching pairs joined, and both means."""
    size = _SIDE + _MARGIN + 10
    x = Scale(-space.reach, space.reach, _MARGIN, _MARGIN + _SIDE)
    y = Scale(-space.reach, space.reach, 10 + _SIDE, 10)
    joined = "".join(
        f"M{x(image[0]):.1f} {y(image[1]):.1f}L{x(text[0]):.1f} {y(text[1]):.1f}"
        for image, text in zip(space.images[:PAIRS_DRAWN], space.texts[:PAIRS_DRAWN], strict=True)
    )
    means = "".join(
        f"{command}{x(mean[0]):.1f} {y(mean[1]):.1f}"
        for command, mean in (("M", space.image_mean), ("L", space.text_mean))
    )
    parts = [
        open_svg(f"{space.name}: first two principal components", space.text, name, size, _SIDE + 36),
        Markup('<rect class="box" x="{}" y="10" width="{}" height="{}"/>').format(_MARGIN, _SIDE, _SIDE),
        Markup('<path class="dots image" d="{}"/>').format(_dots(space.images, x, y)),
        Markup('<path class="dots text" d="{}"/>').format(_triangles(space.texts, x, y)),
        Markup('<path class="pair" d="{}"/><path class="gap" d="{}"/>').format(joined, means),
        _mean("image", x(space.image_mean[0]), y(space.image_mean[1])),
        _mean("text", x(space.text_mean[0]), y(space.text_mean[1])),
    ]
    shares = space.numbers["explained_variance"]
    label = Markup('<text class="axis" x="{}" y="{}">PC1 ({:.0f} %)</text>')
    parts.append(label.format(_MARGIN + _SIDE / 2, _SIDE + 28, 100 * shares[0]))
    label = Markup('<text class="axis" transform="translate(20 {}) rotate(-90)">PC2 ({:.0f} %)</text>')
    parts.append(label.format(10 + _SIDE / 2, 100 * shares[1]))
    return Markup("").join(parts) + Markup("</svg>")


def gap_view(space: Space, others: Sequence[Space], name: str) -> Markup:
    """How images and texts are spread along the line through both means; same scale for all spaces."""
    width = _SIDE + _MARGIN + 10
    along = np.concatenate([rows for one in others for rows in (one.images_along, one.texts_along)])
    edges = np.linspace(along.min() - 1e-3, along.max() + 1e-3, _BINS + 1)
    shares = [np.histogram(rows, edges)[0] / len(rows) for rows in (space.images_along, space.texts_along)]
    x = Scale(float(edges[0]), float(edges[-1]), _MARGIN, _MARGIN + _SIDE)
    y = Scale(0.0, max(float(share.max()) for share in shares), _GAP_HEIGHT - 24, 6)
    text = (
        f"{space.name}: all images and all captions on the line through their means, "
        f"{space.numbers['modality_gap']:.2f} apart."
    )
    parts = [open_svg(f"{space.name}: along the modality gap", text, name, width, _GAP_HEIGHT)]
    for kind, share in zip(("image", "text"), shares, strict=True):
        steps = "".join(
            f"V{y(float(value)):.1f}H{x(float(edge)):.1f}" for value, edge in zip(share, edges[1:], strict=True)
        )
        outline = f"M{x(float(edges[0])):.1f} {y(0):.1f}{steps}V{y(0):.1f}Z"
        parts.append(Markup('<path class="bars {}" d="{}"/>').format(kind, outline))
    for kind, rows in (("image", space.images_along), ("text", space.texts_along)):
        line = Markup('<path class="middle {}" d="M{:.1f} 6V{}"/>')
        parts.append(line.format(kind, x(float(rows.mean())), _GAP_HEIGHT - 24))
    label = Markup('<text class="axis" x="{}" y="{}">along the line through both means</text></svg>')
    return Markup("").join(parts) + label.format(_MARGIN + _SIDE / 2, _GAP_HEIGHT - 4)


def _dots(rows: Floats, x: Scale, y: Scale) -> str:
    """Lines of no length: round caps make them dots, and one path holds them all."""
    return "".join(f"M{x(row[0]):.1f} {y(row[1]):.1f}h0" for row in rows)


def _triangles(rows: Floats, x: Scale, y: Scale) -> str:
    return "".join(f"M{x(row[0]):.1f} {y(row[1]) - 2.6:.1f}l2.4 4.4h-4.8z" for row in rows)


def _mean(kind: str, x: float, y: float) -> Markup:
    if kind == "image":
        return Markup('<circle class="mean-mark image" cx="{:.1f}" cy="{:.1f}" r="6"/>').format(x, y)
    return Markup('<path class="mean-mark text" d="M{:.1f} {:.1f}l6.5 11.5h-13z"/>').format(x, y - 7)
