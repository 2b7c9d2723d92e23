"""Zero-shot classification: an image belongs to the class whose prompts it is most similar to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.evaluation.ranks import TIE_TOLERANCE
from distilvl.evaluation.rows import Floats, checked_rows, refuse_any
from distilvl.lists import list_of_texts

TEMPLATES = ("a photo of a {}.",)
"""The prompt that CLIP uses where nothing is known of the images (Radford et al., ICML 2021, section 3.1.4)."""


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Accuracies, percent.

    Attributes:
        top1, top5: images whose class is first, or among the first five.
        mean_per_class: mean over classes of their own top-1 accuracy; classes without images do not count.
        images, classes: sizes.
        left_out: images that were not classified, by reason.
    """

    top1: float
    top5: float
    mean_per_class: float
    images: int
    classes: int
    left_out: LeftOut = field(default_factory=LeftOut)

    def as_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self) | {"left_out": self.left_out.as_dict()}


def class_features(
    encode_texts: Callable[[Sequence[str]], npt.NDArray[Any]],
    names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> Floats:
    """One unit row a class, (c, D): the normalised mean of the unit features of its prompts.

    Args:
        encode_texts: texts to features, (k,) to (k, D).
        names: of the classes, all different.
        templates: prompts with `{}` in the place of the name.

    Raises:
        DistilvlError: fewer than two classes, a name twice, a template without `{}`, features that cannot be scored.
    """
    names, templates = list_of_texts(names), list_of_texts(templates)
    if len(names) < 2 or len(set(names)) < len(names):
        raise DistilvlError(f"the classes are {', '.join(names)}.", "Give at least two names, each once.")
    for template in templates:
        if "{}" not in template:
            raise DistilvlError(f"the template {template!r} has no place for the name.", "Write {} there.")
    if not templates:
        raise DistilvlError("there is no template.", "Give at least one, such as 'a photo of a {}.'.")
    prompts = [template.replace("{}", name) for name in names for template in templates]
    unit = checked_rows(encode_texts(prompts), "prompt features").exact(slice(None))
    means = unit.reshape(len(names), len(templates), -1).mean(axis=1)
    return checked_rows(means, "class features").exact(slice(None))


def zero_shot(image_features: npt.ArrayLike, class_rows: npt.ArrayLike, labels: npt.ArrayLike) -> ZeroShot:
    """Classify by cosine; ties count against the model.

    Args:
        image_features: (n, D).
        class_rows: (c, D), one row a class, from `class_features`.
        labels: row of each image's class, (n,).

    Raises:
        DistilvlError: features that `score` refuses, labels that do not fit.
    """
    images, classes = checked_rows(image_features, "image features"), checked_rows(class_rows, "class features")
    truth = np.asarray(labels)
    if images.width != classes.width or truth.shape != (len(images),) or not np.issubdtype(truth.dtype, np.integer):
        raise DistilvlError(
            f"images {images.raw.shape}, classes {classes.raw.shape} and labels {truth.shape} do not fit.",
            "Give features of one width, and one integer an image.",
        )
    outside = (truth < 0) | (truth >= len(classes))
    refuse_any(outside, f"labels point outside the {len(classes)} classes", "Count classes from 0.")
    similarity = images.exact(slice(None)) @ classes.exact(slice(None)).T
    own = np.take_along_axis(similarity, truth[:, None], axis=1)
    ranks = np.count_nonzero(similarity >= own - TIE_TOLERANCE, axis=1)  # its own class is one of them
    right = (ranks == 1).astype(np.float64)
    counts = np.bincount(truth, minlength=len(classes))
    per_class = np.bincount(truth, weights=right, minlength=len(classes))[counts > 0] / counts[counts > 0]
    return ZeroShot(
        top1=100.0 * float(right.mean()),
        top5=100.0 * float(np.mean(ranks <= 5)),
        mean_per_class=100.0 * float(per_class.mean()),
        images=len(images),
        classes=len(classes),
    )
