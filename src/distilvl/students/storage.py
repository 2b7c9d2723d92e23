"""Save, load and measure a student; the folder is a plain SentenceTransformer one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from sentence_transformers import SentenceTransformer

from distilvl.errors import DistilvlError
from distilvl.features.atomic import give_usual_modes
from distilvl.students.pretrained import first_line, quiet_transformers
from distilvl.students.processors import take_any_mode
from distilvl.students.routes import MODALITIES, is_student, route


def save_student(student: SentenceTransformer, path: Path) -> None:
    """Write the student folder; it appears whole or, when the write fails, not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with quiet_transformers():
            student.save(str(staging), create_model_card=False)
        _remember_absent_poolers(student, staging)
        give_usual_modes(staging)
        if path.exists():
            shutil.rmtree(path)
        staging.replace(path)
    except OSError as error:
        raise DistilvlError(
            f"cannot write student {path}: {error.strerror}.",
            "Free space or choose another --out, and run again.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remember_absent_poolers(student: SentenceTransformer, folder: Path) -> None:
    """Without this, loading would give towers that were saved without a pooler a new, unused one."""
    for name in MODALITIES:
        tower = route(student, name)[0].model
        if not hasattr(tower, "pooler") or tower.pooler is not None:
            continue
        for path in folder.glob(f"{name}_0_*/sentence_bert_config.json"):
            fields = json.loads(path.read_text(encoding="utf-8"))
            fields["model_kwargs"] = {"add_pooling_layer": False}
            path.write_text(json.dumps(fields, indent=4), encoding="utf-8")


def load_student(path: str | Path, *, device: str | None = None) -> SentenceTransformer:
    """Load a folder that `save_student` wrote.

    Raises:
        DistilvlError: no such folder, not a SentenceTransformer, or one without a text and an image route.
    """
    remedy = "Give the `student` folder of a run (it holds modules.json), or a preset's name."
    if not Path(path, "modules.json").is_file():
        raise DistilvlError(f"{path} is not a student folder.", remedy)
    try:
        with quiet_transformers():
            student = SentenceTransformer(
                str(path), device=device, model_kwargs={"use_safetensors": True}, local_files_only=True
            )
    except Exception as error:  # anything a broken folder makes the library raise
        raise DistilvlError(f"{path} is not a student folder: {first_line(error)}.", remedy) from error
    if not is_student(student):
        raise DistilvlError(f"{path} has no text and image routes.", remedy)
    take_any_mode(route(student, "image")[0].processor)  # students were saved without it once
    return student


def count_parameters(model: SentenceTransformer) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())
