"""`distilvl.fit`: a student in closed form, in minutes. Frozen towers read the data once; the rest is solved.

The steps are `training.gather` (one pass, sums), `training.closed_form` (solve and choose), and the run folder, which
holds what `train`'s does but for curves and checkpoints.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from distilvl.data.crops import Items
from distilvl.features import FeatureStore
from distilvl.recipes import load_fit_config
from distilvl.teachers import Teacher
from distilvl.training.inputs import Inputs
from distilvl.training.train import settings_of

logger = logging.getLogger("distilvl")


def fit(
    *,
    data: str | Path | Items,
    out: str | Path,
    val_data: str | Path | Items | None = None,
    teacher: str | Path | FeatureStore | Teacher | None = None,
    features: str | Path | FeatureStore | None = None,
    student: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    skip_bad: bool = False,
    device: str = "auto",
    devices: int | None = None,
) -> SentenceTransformer:
    """Make a student without a gradient step, or load the finished one in `out`.

    Its towers stay as they are. A ridge regression of the teacher's features on their outputs is the image head; a
    static text tower's table, or a transformer's head, is one as well.

    Args:
        data: a dataset's folder, file or name, or the dataset; its split `train` where it has pairs. Without pairs
            (`unpaired:IMAGES,TEXTS`) photographs and any list of captions will do.
        out: the run folder; the finished student is its subfolder `student`.
        val_data: the dataset whose split `val` scores the student, if it is not `data`. There may be none.
        teacher, features: as of `train`. One of the two.
        student: preset, or YAML file; `lite` otherwise.
        overrides: `section.key=value` items, or a dict, of the sections `student` and `fit`.
        skip_bad: leave bad images out instead of stopping.
        device: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine, one a device; as many as `torchrun` started, else 1.

    Raises:
        DistilvlError: anything wrong with the input; the message says what to do.
    """
    inputs = Inputs(skip_bad)
    named = inputs.named(teacher, features, data=data, val_data=val_data)
    preset = None if student is None else str(student)
    config = load_fit_config(recipe, student=preset, overrides=settings_of(overrides), inputs=named)
    return fit_config(config, Path(out), inputs, device, devices=devices)
