"""`distilvl.fit`: a student in closed form, in minutes. Frozen towers read the data once; the rest is solved.

The steps are `training.gather` (one pass, sums), `training.closed_form` (solve and choose), and the run folder, which
holds what `train`'s does but for curves and checkpoints.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from sentence_transformers import SentenceTransformer

from distilvl.config import FitConfig, ImageTowerConfig
from distilvl.data.crops import Items
from distilvl.data.left_out import LeftOut, all_left_out, source_name, write_left_out
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import evaluate
from distilvl.features import FeatureStore
from distilvl.io.files import write_atomically
from distilvl.recipes import load_fit_config
from distilvl.students import build_student, count_parameters, load_student, save_student
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.storage import route
from distilvl.students.trial import try_student
from distilvl.teachers import Teacher
from distilvl.training.card import write_model_card
from distilvl.training.closed_form import Choice, Gallery, Gathered, fit_head, fit_table
from distilvl.training.distributed import (
    rank_zero_first, resolve_precision, share_of, start_fabric, sum_of_processes,
)  # fmt: skip
from distilvl.training.gather import Images, Pass, gather_images, gather_texts
from distilvl.training.inputs import Inputs
from distilvl.training.run_folder import RunFolder, hold_run_folder
from distilvl.training.student import DEFAULT_DIM
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
