"""What the index tells: hits, the model it was made with, and what an update did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from distilvl.data.left_out import LeftOut


@dataclass(frozen=True)
class ModelInfo:
    """The model whose rows an index holds.

    Attributes:
        spec: what `load_encoder` takes; an absolute path where it is a folder.
        name: the model's.
        revision: which version of it.
        dim: width D of its rows.
    """

    spec: str
    name: str
    revision: str
    dim: int


@dataclass(frozen=True)
class Hit:
    """A picture that was found, with all its copies; or, where copies were asked for by themselves, one file.

    Attributes:
        id: content hash, 32 hex digits; copies of a file share it.
        path: absolute, with `/`; the first of `paths`.
        score: cosine with the query, -1 to 1.
        date: when it was taken, or, where the file does not say, when it was last modified; local time.
        taken: when it was taken, if the file says so (EXIF).
        width: pixels, upright.
        height: pixels, upright.
        paths: the files with this picture that meet the conditions of the search, sorted.
    """

    id: str
    path: str
    score: float
    date: datetime
    taken: datetime | None
    width: int
    height: int
    paths: tuple[str, ...]

    @property
    def copies(self) -> int:
        """How many files: 1 where there is no copy."""
        return len(self.paths)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; times in ISO 8601 without a zone."""
        taken = None if self.taken is None else self.taken.isoformat()
        own = {**asdict(self), "date": self.date.isoformat(), "taken": taken}
        return {**own, "copies": self.copies, "paths": list(self.paths)}


@dataclass
class UpdateReport:
    """What an update did; counts are of files.

    Attributes:
        found: image files in the folder.
        unchanged: known with the same size and time; not read.
        added: new in the table.
        changed: in the table before, with another size or time.
        deleted: left the table, as the file is gone or can no longer be decoded.
        encoded: different pictures that the model was shown.
        unreadable: path and reason of each file that was tried and cannot be decoded.
        remembered: files that could not be decoded before and have not changed since; not tried.
        seconds: of reading, decoding and encoding.
        left_out: all that the folder has and the index does not, by reason: files that could not be decoded now or
            before, formats that are not read, hidden folders and so on; names are absolute paths.
    """

    found: int = 0
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    encoded: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    remembered: int = 0
    seconds: float = 0.0
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def images_per_second(self) -> float:
        """Rate of encoding; 0 where nothing was encoded."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        unreadable = [{"path": path, "reason": reason} for path, reason in self.unreadable]
        return {
            **asdict(self),
            "unreadable": unreadable,
            "left_out": self.left_out.as_dict(),
            "images_per_second": self.images_per_second,
        }
