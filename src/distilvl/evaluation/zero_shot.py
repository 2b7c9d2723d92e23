"""Zero-shot classification: an image belongs to the class whose prompts it is most similar to; labelled images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.columns import Choice
from distilvl.data.folders import scan_folder
from distilvl.data.left_out import BadItemError, Faults, LeftOut
from distilvl.data.listing import dataset_of, image_in
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.data.tables import read_table
from distilvl.errors import DistilvlError
from distilvl.evaluation.embeddings import Floats, checked_embeddings, refuse_any
from distilvl.evaluation.ranks import TIE_TOLERANCE
from distilvl.io.inputs import list_of_texts

TEMPLATES = ("a photo of a {}.",)
"""The prompt that CLIP uses where nothing is known of the images (Radford et al., ICML 2021, section 3.1.4)."""


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Accuracies, percent."""

    top1: float  # images whose class is first
    top5: float  # or among the first five
    mean_per_class: float  # mean over classes of their own top-1 accuracy; classes without images do not count
    images: int
    classes: int
    left_out: LeftOut = field(default_factory=LeftOut)  # images that were not classified, by reason

    def as_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self) | {"left_out": self.left_out.as_dict()}


def class_features(
    encode: Callable[[Sequence[str]], npt.NDArray[Any]], names: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> Floats:
    """One L2-normalised row a class, (c, D): the mean direction of the features, (k, D), of its prompts.

    The prompts are the `templates` with the class's name in the place of `{}`. `DistilvlError` for fewer than two
    classes, a name twice, a template without `{}`, features that cannot be scored.
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
    unit = checked_embeddings(encode(prompts), "prompt features").exact()
    means = unit.reshape(len(names), len(templates), -1).mean(axis=1)
    return checked_embeddings(means, "class features").exact()


def zero_shot(image_features: npt.ArrayLike, class_rows: npt.ArrayLike, labels: npt.ArrayLike) -> ZeroShot:
    """Classify images (n, D) by cosine; ties count against the model.

    `class_rows` is (c, D), one row a class, from `class_features`; `labels` the row of each image's class, (n,).
    `DistilvlError` for features that `score` refuses, labels that do not fit.
    """
    images = checked_embeddings(image_features, "image features")
    classes = checked_embeddings(class_rows, "class features")
    truth = np.asarray(labels)
    if images.dim != classes.dim or truth.shape != (len(images),) or not np.issubdtype(truth.dtype, np.integer):
        problem = f"images {images.raw.shape}, classes {classes.raw.shape} and labels {truth.shape} do not fit."
        raise DistilvlError(problem, "Give embeddings of one dimension, and one integer an image.")
    outside = (truth < 0) | (truth >= len(classes))
    refuse_any(outside, f"labels point outside the {len(classes)} classes", "Count classes from 0.")
    similarity = images.exact() @ classes.exact().T
    own = np.take_along_axis(similarity, truth[:, None], axis=1)
    ranks = np.count_nonzero(similarity >= own - TIE_TOLERANCE, axis=1)  # its own class is one of them
    right = (ranks == 1).astype(np.float64)
    counts = np.bincount(truth, minlength=len(classes))
    per_class = np.bincount(truth, weights=right, minlength=len(classes))[counts > 0] / counts[counts > 0]
    top1, top5, mean = (100.0 * float(np.mean(shares)) for shares in (right, ranks <= 5, per_class))
    return ZeroShot(top1, top5, mean, len(images), len(classes))


def read_labels(path: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """Labelled images as a dataset in which the only caption of an image is the name of its class.

    `path` is a folder that holds a folder of images for each class (underscores in its name are read as spaces), or a
    CSV with the columns `image` (a path relative to the CSV's folder) and `class`. With `skip_bad`, bad lines and
    missing files are left out and counted; what a scan of the folder leaves out, and images beside the folders, always.
    `DistilvlError` for any other path, a bad line (by its number), an image twice, missing files.
    """
    path = Path(path)
    faults = Faults(path.resolve().name, skip_bad=skip_bad)
    if path.is_dir():
        records = list(_of_folder(path, faults))
        remedy = "Put the images of each class into a folder of its own, named like the class."
    elif path.suffix.lower() == ".csv":
        records = list(_of_csv(path, faults))
        remedy = "Write a line an image below the header 'image,class'."
    else:
        remedy = "Give a folder with a folder for each class, or a CSV."
        raise DistilvlError(f"{path} is no list of labelled images.", remedy)
    faults.check()
    if not records:
        left_out = f"; left out: {'; '.join(faults.left_out.lines())}" if faults.left_out else ""
        raise DistilvlError(f"{path} holds no labelled images{left_out}.", remedy)
    return dataset_of(faults.source, records, faults)


def _of_folder(root: Path, faults: Faults) -> Iterator[Record]:
    found = scan_folder(root, skip_bad=faults.skip_bad)
    faults.left_out.update(found.left_out)
    for name in sorted([*found.images, *found.dead]):
        folder, inside, _ = name.partition("/")
        if inside:
            yield Record(name, FileImage(str(root / name)), (folder.replace("_", " "),), "test")
        else:
            faults.left_out.add("no class: it lies beside the folders", name)


def _of_csv(path: Path, faults: Faults) -> Iterator[Record]:
    for where, _, values in read_table(path, Choice("image", ("class",)), faults):
        with faults:
            name, image = values["class"].strip(), values.get("image")
            if not name:
                raise BadItemError(f"{where} has no class", "Give every image one.", name=where, reason="no class")
            yield Record(str(image), image_in(path.parent, image, where), (name,), "test")
