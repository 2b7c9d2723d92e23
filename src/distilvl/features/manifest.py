"""What a store says about itself: which teacher made it and what its embeddings are like."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Protocol

from distilvl.data.crops import Crops
from distilvl.errors import DistilvlError
from distilvl.io.checksums import sealed, unsealed
from distilvl.io.files import create_atomically, write_atomically

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("teacher", "revision", "dtype", "preprocessing"), (str,)),
    **dict.fromkeys(("dim", "format_version"), (int,)),
    "normalized": (bool,),
    "num_parameters": (int, type(None)),
}


class Named(Protocol):
    """What a store has to know of a teacher."""

    name: str
    revision: str
    dim: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Written once, when a store is made. It holds no time and no path, so the same work gives the same bytes."""

    teacher: str  # name of the teacher that made the features
    revision: str  # which version of it; features of two revisions are never mixed
    dim: int  # embedding dimension D
    dtype: str = "float16"  # how numbers are stored; there is no other one
    normalized: bool = True  # embeddings are L2-normalised, as far as float16 goes
    preprocessing: str = ""  # what the teacher says it does to an item first; for people
    num_parameters: int | None = None  # size of the teacher, when it is known
    views: Crops | None = None  # how crops of its images were drawn, when it holds any; not every image need have them
    format_version: int = FORMAT_VERSION  # layout of the store's files

    @classmethod
    def of_teacher(cls, teacher: Named) -> Manifest:
        """The manifest of a store that `teacher` fills."""
        parameters = getattr(teacher, "num_parameters", None)
        # A method of that name is what the models of transformers have.
        size = int(parameters) if isinstance(parameters, int | Integral) else None
        told = str(getattr(teacher, "preprocessing", ""))
        name, revision, dim = teacher.name, teacher.revision, int(teacher.dim)
        return cls(teacher=name, revision=revision, dim=dim, preprocessing=told, num_parameters=size)

    def __repr__(self) -> str:
        crops = "" if self.views is None else f", views={self.views!r}"
        return f"Manifest(teacher={self.teacher!r}, revision={self.revision!r}, dim={self.dim}{crops})"

    def save(self, folder: Path) -> None:
        """Write `manifest.json`, atomically."""
        write_atomically(folder / MANIFEST_NAME, self._text())

    def create(self, folder: Path) -> bool:
        """As `save`, but False, and nothing written, where another writer was faster."""
        return create_atomically(folder / MANIFEST_NAME, self._text())

    def _text(self) -> bytes:
        values = asdict(self)
        if self.views is None:
            del values["views"]  # stores without crops say nothing of them, as they did before there were any
        else:
            values["views"] = self.views.as_dict()
        return (json.dumps(sealed(values), indent=2, ensure_ascii=False) + "\n").encode("utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `manifest.json` of `folder`; `DistilvlError` for none, a broken one, or one of a newer format."""
        path = folder / MANIFEST_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            problem = f"{folder} is not a feature store: {MANIFEST_NAME} cannot be read ({error.strerror})."
            raise DistilvlError(problem, "Give the folder that `distilvl features --out` wrote.") from error
        except ValueError as error:
            raise _broken(path, "it is not JSON") from error
        try:
            values = unsealed(values)
        except ValueError as error:
            raise _broken(path, str(error)) from error
        if not isinstance(values, dict):
            raise _broken(path, "it is not an object")
        if values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            problem = f"{path} has format version {values['format_version']!r}, not {FORMAT_VERSION}."
            raise DistilvlError(problem, "Upgrade distilvl, or make the store again with `distilvl features`.")
        values = {"views": None, **values}
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise _broken(path, f"its keys are not {', '.join(sorted(names))}")
        for name, kinds in _TYPES.items():
            if type(values[name]) not in kinds:
                raise _broken(path, f"{name!r} is {values[name]!r}")
        if values["dim"] < 1 or values["dtype"] != "float16":
            raise _broken(path, f"dim is {values['dim']} and dtype {values['dtype']!r}")
        if values["views"] is not None:
            try:
                values["views"] = Crops.from_dict(values["views"])
            except ValueError as error:
                raise _broken(path, str(error)) from error
        return cls(**values)

    def require_same_teacher(self, other: Manifest, folder: Path) -> None:
        """Refuse to mix features: `DistilvlError` unless `other` could have written this store too."""
        remedy = "Choose another --out folder, or delete this store to make it again."
        ours, theirs = (f"{one.teacher!r} revision {one.revision!r}" for one in (self, other))
        if ours != theirs:
            problem = f"was made by another teacher: it holds {ours}, not {theirs}."
            raise DistilvlError(f"the store {folder} {problem}", remedy)
        if self.dim != other.dim:
            problem = f"has dimension {self.dim}, but teacher {other.teacher!r} has {other.dim}."
            raise DistilvlError(f"the store {folder} {problem}", remedy)
        ours, theirs = (f"{one.preprocessing!r} (normalized: {one.normalized})" for one in (self, other))
        if ours != theirs:
            problem = f"was made with other preprocessing: it says {ours}, not {theirs}."
            raise DistilvlError(f"the store {folder} {problem}", remedy)


def _broken(path: Path, reason: str) -> DistilvlError:
    problem = f"the manifest {path} is broken: {reason}."
    return DistilvlError(problem, "Delete the store and make it with `distilvl features`.")
