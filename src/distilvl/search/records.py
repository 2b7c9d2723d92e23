"""What the index tells: hits, the model it was made with, what an update did; and the small files beside its table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from distilvl.data.left_out import NOT_DECODED, LeftOut
from distilvl.errors import DistilvlError
from distilvl.io.files import write_atomically
from distilvl.models.encoder import ModelInfo
from distilvl.pictures import DECODING_VERSION, max_pixels


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


ABOUT_NAME = "distilvl-index.json"
UNREADABLE_NAME = "unreadable.json"
FORMAT_VERSION = 1
_REMEDY = "Give the folder that `distilvl index --out` wrote, or make it again with `distilvl index --rebuild`."


@dataclass
class About:
    """What an index says about itself.

    Attributes:
        model: whose rows it holds.
        folders: what was indexed, absolute, with `/`; none lies in another.
        trained_rows: size of the table when its vector index was last made; 0 while there is none.
        rebuilding: it was begun anew, and no update has ended since.
        format_version: layout of the folder.
    """

    model: ModelInfo
    folders: list[str] = field(default_factory=list)
    trained_rows: int = 0
    rebuilding: bool = False
    format_version: int = FORMAT_VERSION

    def save(self, index: Path) -> None:
        """Write it, atomically."""
        _save(index / ABOUT_NAME, asdict(self))

    def cover(self, folder: str) -> bool:
        """Count `folder` among the indexed ones; False when it was, or lies in one."""
        within = folder.rstrip("/") + "/"
        if any(within.startswith(known.rstrip("/") + "/") for known in self.folders):
            return False
        inside = [known for known in self.folders if known.startswith(within)]
        self.folders = sorted({*self.folders, folder} - set(inside))
        return True

    @classmethod
    def load(cls, index: Path) -> About:
        """Read it.

        Raises:
            DistilvlError: not an index, a broken one, or one of a newer format.
        """
        path = index / ABOUT_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DistilvlError(f"{index} is not an index of photographs.", _REMEDY) from error
        except ValueError as error:
            raise DistilvlError(f"{path} is not JSON.", _REMEDY) from error
        if isinstance(values, dict) and values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise DistilvlError(f"{path} is of another version of distilvl.", "Upgrade distilvl, or --rebuild.")
        try:
            model = ModelInfo(**values.pop("model"))
            about = cls(model, **values)
            texts = [model.spec, model.name, model.revision, *about.folders]
        except (AttributeError, KeyError, TypeError) as error:
            raise DistilvlError(f"{path} has not the fields of an index.", _REMEDY) from error
        numbers = (model.dim, about.trained_rows)
        is_whole = all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)
        if not is_whole or not isinstance(about.rebuilding, bool):
            raise DistilvlError(f"{path} has not the fields of an index.", _REMEDY)
        return about

    @staticmethod
    def stamp(index: Path) -> tuple[int, int, int]:
        """What is another whenever the file was written again; zeros when there is none."""
        try:
            status = (index / ABOUT_NAME).stat()
        except OSError:
            return 0, 0, 0
        # Every write makes a new file, so that its number tells apart two within one tick of the disk's clock.
        return status.st_mtime_ns, status.st_ino, status.st_size


class Unreadable:
    """Files that could not be decoded, with their stamp, so that they are tried again only when they change.

    All are tried again when the limit of pixels is another one, or distilvl reads more than it did.
    """

    def __init__(self, index: Path) -> None:
        self._path = index / UNREADABLE_NAME
        self._changed = False
        self._rules = [DECODING_VERSION, max_pixels()]
        self._files: dict[str, tuple[int, int, str, str]] = {}
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            files = values["files"] if values["rules"] == self._rules else {}
            self._files = {path: (int(one[0]), int(one[1]), str(one[2]), str(one[3])) for path, one in files.items()}
        # Forgetting them costs one try each.
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            self._files = {}

    @staticmethod
    def remove(index: Path) -> None:
        """Forget them all."""
        (index / UNREADABLE_NAME).unlink(missing_ok=True)

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Size and time of the file when it could not be decoded; None when it could, or was never tried."""
        found = self._files.get(path)
        return None if found is None else found[:2]

    def kind(self, path: str) -> str:
        """Why it could not be decoded, as a phrase."""
        return self._files[path][3]

    def add(self, path: str, stamp: tuple[int, int], reason: str, kind: str = NOT_DECODED) -> None:
        """Remember a file; `reason` is a sentence, `kind` a phrase."""
        self._files[path] = (*stamp, reason, kind)
        self._changed = True

    def forget(self, paths: set[str]) -> None:
        """Files that are gone, or good by now."""
        for path in paths & self._files.keys():
            del self._files[path]
            self._changed = True

    def paths(self) -> list[str]:
        """All of them."""
        return list(self._files)

    def save(self) -> None:
        """Write them, atomically, if there is anything new."""
        if self._changed:
            _save(self._path, {"rules": self._rules, "files": self._files})
            self._changed = False


def _save(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
