"""Where a student lies, and what its folder says of it beside the model; needs no PyTorch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.io.checksums import write_sums

_CONFIG, _MODULES, _ROUTES, _WIDTHS = "config.yaml", "modules.json", "router_config.json", "matryoshka.json"
BASIS_NAME = "teacher_basis.safetensors"


def is_sentence_transformer(folder: Path) -> bool:
    """Whether `folder` holds a SentenceTransformer, as every student is."""
    return (folder / _MODULES).is_file()


def has_student_routes(folder: Path) -> bool:
    """Whether `folder` holds a SentenceTransformer of a student's shape: a text and an image route."""
    try:
        routes = json.loads((folder / _ROUTES).read_text(encoding="utf-8"))["structure"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return is_sentence_transformer(folder) and isinstance(routes, dict) and set(routes) == {"text", "image"}


def student_folder(path: str | Path) -> Path:
    """The student of a run folder, `DistilvlError` if the run is not finished; any other path as it is."""
    path = Path(path)
    if is_sentence_transformer(path) or not (path / _CONFIG).is_file():
        return path
    if not (path / "student").is_dir():
        remedy = "Run its `distilvl train` command again to finish it."
        raise DistilvlError(f"run {path} has no finished student yet.", remedy)
    return path / "student"


def run_of(path: str | Path) -> Path | None:
    """The run folder that `path` is, or is the student of."""
    path = Path(path)
    return next((folder for folder in (path, path.parent) if (folder / _CONFIG).is_file()), None)


def save_dims(dims: Sequence[int], student: Path) -> None:
    """Write in the student's folder to which dimensions a Matryoshka student may be cut."""
    (student / _WIDTHS).write_text(json.dumps({"widths": list(dims)}) + "\n", encoding="utf-8")
    write_sums(student)


def load_dims(student: Path) -> tuple[int, ...]:
    """The dimensions that a Matryoshka student may be cut to; `DistilvlError` if the file holds something else."""
    path = student / _WIDTHS
    if not path.is_file():
        return ()
    try:
        dims = json.loads(path.read_text(encoding="utf-8"))["widths"]
        if not (isinstance(dims, list) and all(type(dim) is int and dim > 0 for dim in dims)):
            raise ValueError("it holds no list of widths")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DistilvlError(f"{path} is damaged: {error}.", "Copy the student's folder again.") from error
    return tuple(dims)


def read_basis(student: Path) -> npt.NDArray[Any] | None:
    """R of a student's or exported folder, (D, D) float32; none where the student learnt the teacher's own space.

    `DistilvlError` if the file holds something else.
    """
    path = student / BASIS_NAME
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        basis: npt.NDArray[Any] = load_file(path)["basis"]
        if basis.ndim != 2 or basis.shape[0] != basis.shape[1]:
            raise ValueError(f"the shape {basis.shape}")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DistilvlError(f"{path} is damaged: {error}.", "Copy the student's folder again.") from error
    return basis
