"""Figure 2: the feature spaces of teacher and student side by side, in three and in two principal components."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Space = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
"""Image embeddings (n, D), text embeddings (m, D), and for each text the row of its image (m,)."""

IMAGES_DRAWN = 500
PAIRS_DRAWN = 12
# Two colours of the Okabe-Ito palette, apart for every kind of colour blindness; shapes tell them apart in grey.
IMAGE_COLOUR, TEXT_COLOUR = "#0072B2", "#E69F00"
IMAGE_MARK, TEXT_MARK = "o", "^"


@dataclass(frozen=True)
class Points:
    """What is drawn of a space: rows of image and text k belong together."""

    images: Floats  # (k, 3) coordinates on the principal components
    texts: Floats
    image_mean: Floats  # (3,) where the mean of all images falls
    text_mean: Floats
    explained: Floats  # share of the drawn rows' variance on each of the three components
    images_along: Floats  # all rows on the line through both means; 0 is the middle between the means
    texts_along: Floats


@dataclass(frozen=True, slots=True)
class SpaceNumbers:
    """What the figure says about a space, in numbers; embeddings are L2-normalised first."""

    modality_gap: float  # distance between the mean image and the mean text embedding, 0 to 2
    matching_cosine: float  # mean, of an image and each of its texts
    other_cosine: float  # mean, of an image and the texts of all other images
    explained_variance: tuple[float, ...]  # shares of variance on the three principal components
    images: int
    texts: int
    pairs_drawn: int


def draw_figure2(spaces: Mapping[str, Space], out: Path, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Draw the spaces beside each other and write `figure2.png`, `figure2.svg` and `figure2.json` in `out`.

    Each space gets a PCA of its own, fitted on drawn images and texts together, so axes of different spaces do not
    correspond; their scale is the same. At most 500 images are drawn, each with one of its texts, chosen by `seed`;
    spaces over the same images show the same pairs. Numbers are over all rows.

    Returns `SpaceNumbers` by title, as in `figure2.json`. `DistilvlError` for no space, shapes that do not fit, fewer
    than two images, a NaN or a zero row; or where matplotlib is missing.
    """
    checked = {name: checked_space(name, space) for name, space in spaces.items()}
    if not checked:
        raise DistilvlError("there is no space to draw.", "Give at least one.")
    require_matplotlib("Figure 2")
    points = {name: project_space(*rows, seed) for name, rows in checked.items()}
    numbers = {name: asdict(space_numbers(*rows, points[name])) for name, rows in checked.items()}
    out.mkdir(parents=True, exist_ok=True)
    _save(points, numbers, out)
    (out / "figure2.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return numbers


def checked_space(name: str, space: Space) -> tuple[Floats, Floats, Integers]:
    """L2-normalised embeddings in float64, and owners."""
    images, texts = (np.asarray(rows, dtype=np.float64) for rows in space[:2])
    owner = np.asarray(space[2])
    fits = images.ndim == texts.ndim == 2 and images.shape[1] == texts.shape[1] and owner.shape == (len(texts),)
    if not fits or len(images) < 2 or images.shape[1] < 3 or not np.issubdtype(owner.dtype, np.integer):
        problem = f"{name}: images {images.shape}, texts {texts.shape} and owners {owner.shape} make no space."
        remedy = "Give (n, D), (m, D) and (m,) integers, for at least 2 images and D of at least 3."
        raise DistilvlError(problem, remedy)
    if not len(texts) or owner.min() < 0 or owner.max() >= len(images):
        raise DistilvlError(f"{name}: a text points outside the {len(images)} images.", "Count image rows from 0.")
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts)]
    if not all(np.isfinite(length).all() and length.all() for length in lengths):
        raise DistilvlError(f"{name}: a row is zero, infinite or not a number.", "Retrain or re-extract the features.")
    return images / lengths[0], texts / lengths[1], owner.astype(np.int64)


def space_numbers(images: Floats, texts: Floats, owner: Integers, points: Points) -> SpaceNumbers:
    """What is said of a space in numbers, over all rows of `checked_space` and its drawn `points`."""
    matching = np.einsum("md,md->m", texts, images[owner])
    all_pairs = float(texts.sum(axis=0) @ images.sum(axis=0))
    others = len(texts) * (len(images) - 1)
    return SpaceNumbers(
        modality_gap=float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0))),
        matching_cosine=float(matching.mean()),
        other_cosine=(all_pairs - float(matching.sum())) / others,
        explained_variance=tuple(float(share) for share in points.explained),
        images=len(images),
        texts=len(texts),
        pairs_drawn=len(points.images),
    )


def project_space(images: Floats, texts: Floats, owner: Integers, seed: int) -> Points:
    """Drawn pairs of a space, rows of `checked_space`, on the principal components of the drawn rows."""
    from sklearn.decomposition import PCA

    # At most 500 images, and one text of each.
    random = np.random.default_rng(seed)
    order = random.permutation(len(owner))
    owners, first = np.unique(owner[order], return_index=True)
    kept = random.permutation(len(owners))[:IMAGES_DRAWN]
    chosen_images, chosen_texts = owners[kept], order[first[kept]]
    # The full solver draws no random numbers, and its signs are fixed: the same features give the same picture.
    pca = PCA(n_components=3, svd_solver="full")
    pca.fit(np.concatenate([images[chosen_images], texts[chosen_texts]]))
    image_mean, text_mean = images.mean(axis=0), texts.mean(axis=0)
    means = pca.transform(np.stack([image_mean, text_mean]))
    # Without any gap there is no direction, and every row falls on 0.
    direction = (text_mean - image_mean) / max(float(np.linalg.norm(text_mean - image_mean)), 1e-12)
    middle = (image_mean + text_mean) / 2
    return Points(
        images=pca.transform(images[chosen_images]),
        texts=pca.transform(texts[chosen_texts]),
        image_mean=means[0],
        text_mean=means[1],
        explained=pca.explained_variance_ratio_,
        images_along=(images - middle) @ direction,
        texts_along=(texts - middle) @ direction,
    )


def require_matplotlib(what: str) -> None:
    """`DistilvlError` with the remedy where matplotlib is missing, which draws `what`."""
    require("matplotlib", extra="report", why=what)


def common_reach(spaces: Iterable[Points]) -> float:
    """Half the side of the square that holds the drawn points of all spaces."""
    return 1.05 * max(float(np.abs(np.concatenate([p.images, p.texts])).max()) for p in spaces)


def common_bins(spaces: Iterable[Points], count: int) -> Floats:
    """Edges of bins that hold all rows of all spaces along their lines through both means, shape (count + 1,)."""
    along = np.concatenate([rows for p in spaces for rows in (p.images_along, p.texts_along)])
    return np.linspace(along.min() - 1e-3, along.max() + 1e-3, count + 1)


def _save(points: Mapping[str, Points], numbers: Mapping[str, dict[str, Any]], out: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same features give the same SVG, byte for byte.
    with matplotlib.rc_context({"svg.hashsalt": "distilvl", "font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(5.2 * len(points), 11.6), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, points, numbers)
        figure.savefig(out / "figure2.png", dpi=150, metadata={"Software": None})
        figure.savefig(out / "figure2.svg", metadata={"Date": None})


def _draw(figure: Figure, points: Mapping[str, Points], numbers: Mapping[str, dict[str, Any]]) -> None:
    grid = figure.add_gridspec(3, len(points), height_ratios=(1, 1, 0.32))
    reach, bins = common_reach(points.values()), common_bins(points.values(), 60)
    for column, (name, space) in enumerate(points.items()):
        solid: Any = figure.add_subplot(grid[0, column], projection="3d")
        solid.set_title(name, fontsize=13, fontweight="bold")
        _draw_solid(solid, space, reach)
        flat = figure.add_subplot(grid[1, column])
        draw_flat(flat, space, reach)
        # Adding 0 turns the -0.0 of rounding into 0.0.
        said = (numbers[name][key] for key in ("modality_gap", "matching_cosine", "other_cosine"))
        gap, matching, other = (round(value, 2) + 0.0 for value in said)
        flat.set_title(f"modality gap {gap:.2f}; mean cosine: matching {matching:.2f}, others {other:.2f}", size=9.5)
        flat.grid(alpha=0.25)
        along = figure.add_subplot(grid[2, column])
        draw_gap(along, space, bins)
        along.set(xlabel="along the line through both means; all rows", ylabel="density")
    handles, labels = flat.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _draw_solid(axes: Axes3D, space: Points, reach: float) -> None:
    from matplotlib.ticker import MaxNLocator

    for rows, colour, mark in ((space.images, IMAGE_COLOUR, IMAGE_MARK), (space.texts, TEXT_COLOUR, TEXT_MARK)):
        x, y, z = rows.T
        axes.scatter(x, y, zs=z, s=12, c=colour, marker=mark, alpha=0.6, linewidths=0, depthshade=False)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.set(xlabel=_axis(space, 0), ylabel=_axis(space, 1), zlabel=_axis(space, 2))
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.set_box_aspect((1, 1, 1), zoom=0.9)
    axes.view_init(elev=18, azim=-60)


def draw_flat(axes: Axes, space: Points, reach: float) -> None:
    """PC1 and PC2: all points, some matching pairs joined, both means and the gap between them.

    Each artist has a label, which a legend and the report's style sheet go by; legends leave those with `_` out.
    """
    pairs = list(zip(space.images[:PAIRS_DRAWN], space.texts[:PAIRS_DRAWN], strict=True))
    x, y = (np.array([[image[k], text[k], np.nan] for image, text in pairs]).ravel() for k in (0, 1))
    axes.plot(x, y, color="0.35", linewidth=0.8, zorder=3, label="matching pair")
    groups = (
        ("image", space.images, space.image_mean, IMAGE_COLOUR, IMAGE_MARK),
        ("text", space.texts, space.text_mean, TEXT_COLOUR, TEXT_MARK),
    )
    for name, rows, mean, colour, mark in groups:
        style: dict[str, Any] = {"c": colour, "marker": mark}
        axes.scatter(rows[:, 0], rows[:, 1], s=13, alpha=0.5, linewidths=0, label=name, **style)
        style["edgecolors"] = "black"
        ends = rows[:PAIRS_DRAWN]
        axes.scatter(ends[:, 0], ends[:, 1], s=26, linewidths=0.6, zorder=4, label=f"_end {name}", **style)
        axes.scatter(mean[0], mean[1], s=170, linewidths=1.6, zorder=6, label=f"mean {name}", **style)
    gap = np.stack([space.image_mean, space.text_mean])
    axes.plot(gap[:, 0], gap[:, 1], color="black", linewidth=2, zorder=5, label="_gap")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set(xlabel=_axis(space, 0), ylabel=_axis(space, 1))


def draw_gap(axes: Axes, space: Points, bins: Floats) -> None:
    """How all images and all texts are spread along the line through both means; labels as in `draw_flat`."""
    edges = bins.tolist()
    for name, rows, colour in (("image", space.images_along, IMAGE_COLOUR), ("text", space.texts_along, TEXT_COLOUR)):
        axes.hist(rows, edges, density=True, histtype="stepfilled", color=colour, alpha=0.55, label=f"_spread {name}")
        axes.axvline(float(rows.mean()), color="black", linewidth=2.6, label="_edge")
        axes.axvline(float(rows.mean()), color=colour, linewidth=1.4, label=f"_middle {name}")
    axes.set(yticks=[])


def _axis(space: Points, k: int) -> str:
    return f"PC{k + 1} ({100 * space.explained[k]:.0f} %)"
