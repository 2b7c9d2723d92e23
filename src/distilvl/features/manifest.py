"""What a store says about itself: which teacher made it and what its embeddings are like."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from distilvl.data.crops import Crops
from distilvl.errors import DistilvlError
from distilvl.io.files import create_atomically, write_atomically

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


class Named(Protocol):
    """What a store has to know of a teacher."""

    name: str
    revision: str
    dim: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Written once, when a store is made. It holds no time and no path, so the same work gives the same bytes.

    Attributes:
        teacher: name of the teacher that made the features.
        revision: which version of it; features of two revisions are never mixed.
        dim: embedding dimension D.
        dtype: how numbers are stored; always `float16`.
        normalized: embeddings are L2-normalised, as far as float16 goes.
        preprocessing: what the teacher says it does to an item first; for people.
        num_parameters: size of the teacher, when it is known.
        views: how crops of its images were drawn, when it holds any; not every image need have them.
        format_version: layout of the store's files.
    """

    teacher: str
    revision: str
    dim: int
    dtype: str = "float16"
    normalized: bool = True
    preprocessing: str = ""
    num_parameters: int | None = None
    views: Crops | None = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def of_teacher(cls, teacher: Named) -> Manifest:
        """The manifest of a store that `teacher` fills."""
        parameters = getattr(teacher, "num_parameters", None)
        return cls(
            teacher=teacher.name,
            revision=teacher.revision,
            dim=int(teacher.dim),
            preprocessing=str(getattr(teacher, "preprocessing", "")),
            # A method of that name is what the models of transformers have.
            num_parameters=int(parameters) if isinstance(parameters, int | Integral) else None,
        )

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
            # Stores without crops say nothing of them, as they did before there were any.
            del values["views"]
        return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `manifest.json` of `folder`; `DistilvlError` for none, a broken one, or one of a newer format."""
        path = folder / MANIFEST_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DistilvlError(
                f"{folder} is not a feature store: {MANIFEST_NAME} cannot be read ({error.strerror}).",
                "Give the folder that `distilvl features --out` wrote.",
            ) from error
        except ValueError as error:
            raise _broken(path, "it is not JSON") from error
        return cls._checked(path, values)

    @classmethod
    def _checked(cls, path: Path, values: Any) -> Manifest:
        kinds: dict[str, tuple[type, ...]] = {
            "teacher": (str,),
            "revision": (str,),
            "dim": (int,),
            "dtype": (str,),
            "normalized": (bool,),
            "preprocessing": (str,),
            "num_parameters": (int, type(None)),
            "format_version": (int,),
        }
        if not isinstance(values, dict):
            raise _broken(path, "it is not an object")
        if values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise DistilvlError(
                f"{path} has format version {values['format_version']!r}, not {FORMAT_VERSION}.",
                "Upgrade distilvl, or make the store again with `distilvl features`.",
            )
        values = {"views": None, **values}
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise _broken(path, f"its keys are not {', '.join(sorted(names))}")
        for name, kind in kinds.items():
            if type(values[name]) not in kind:
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
        if (self.teacher, self.revision) != (other.teacher, other.revision):
            raise DistilvlError(
                f"the store {folder} was made by another teacher: it holds {self.teacher!r} revision "
                f"{self.revision!r}, not {other.teacher!r} revision {other.revision!r}.",
                remedy,
            )
        if self.dim != other.dim:
            raise DistilvlError(
                f"the store {folder} has dimension {self.dim}, but teacher {other.teacher!r} has {other.dim}.", remedy
            )
        if (self.normalized, self.preprocessing) != (other.normalized, other.preprocessing):
            raise DistilvlError(
                f"the store {folder} was made with other preprocessing: it says {self.preprocessing!r} "
                f"(normalized: {self.normalized}), "
                f"not {other.preprocessing!r} (normalized: {other.normalized}).",
                remedy,
            )


def _broken(path: Path, reason: str) -> DistilvlError:
    return DistilvlError(
        f"the manifest {path} is broken: {reason}.", "Delete the store and make it with `distilvl features`."
    )
