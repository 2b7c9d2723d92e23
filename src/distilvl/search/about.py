"""What an index says of itself in small JSON files beside its table, and `UpdateReport`, what an update did."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distilvl.data.left_out import LeftOut, all_left_out, read_left_out, write_left_out
from distilvl.errors import DistilvlError, UnavailableError
from distilvl.io.checksums import sealed, unsealed
from distilvl.io.files import PARTIAL_PREFIX, write_atomically
from distilvl.io.leases import LOCK_NAME
from distilvl.models.encoder import ModelInfo
from distilvl.pictures import DECODING_VERSION, max_pixels

ABOUT_NAME = "distilvl-index.json"
REBUILDING_NAME = "rebuilding.json"  # the same of what is to take the index's place
_HOMES = ("", "rebuilt")  # where the table and all else lies; while one answers, the other is made anew
UNREADABLE_NAME = "unreadable.json"
FORMAT_VERSION = 1
_NAMED = 5  # folders in a message
_REMEDY = "Give the folder that `distilvl index --out` wrote, or make it again with `distilvl index --rebuild`."


@dataclass(frozen=True)
class StoredTeacher:
    """A feature store whose embeddings photographs of an index have, and whose they are."""

    features: str  # what `FeatureStore.open` takes, absolute
    teacher: str  # its name
    revision: str

    def __str__(self) -> str:
        return f"{self.teacher!r} revision {self.revision!r}"


@dataclass
class About:
    """What an index says about itself.

    Attributes:
        folders: what was indexed, absolute, with `/`; none lies in another.
        trained_rows: size of the table when its vector index was last made; 0 while there is none.
        rebuilding: this is what was begun anew, and no update of it has ended; the index answers as it was meanwhile.
        stored: where photographs have their embeddings from, if not all from the model.
        format_version: layout of the folder.
        home: the folder in the index's that holds its table and other files; empty: the index's own.
    """

    model: ModelInfo
    folders: list[str] = field(default_factory=list)
    trained_rows: int = 0
    rebuilding: bool = False
    stored: StoredTeacher | None = None
    format_version: int = FORMAT_VERSION
    home: str = _HOMES[0]

    @property
    def other_home(self) -> str:
        """Where what takes its place is made, or what it took the place of was."""
        return _HOMES[1 - _HOMES.index(self.home)]

    def left_out(self, index: Path) -> LeftOut:
        """What was left out of its folders when each was indexed last, by reason; names are absolute paths."""
        return all_left_out(read_left_out(index / self.home))

    def save(self, index: Path) -> None:
        """Write it, atomically."""
        values = asdict(self)
        for name in ("stored", "home"):
            if not values[name]:
                del values[name]  # an index without says nothing of it, as before there were any
        _save(index / (REBUILDING_NAME if self.rebuilding else ABOUT_NAME), sealed(values))

    def cover(self, folder: str) -> bool:
        """Count `folder` among the indexed ones; False when it was, or lies in one."""
        if any(prefix(folder).startswith(prefix(known)) for known in self.folders):
            return False
        outside = [known for known in self.folders if not known.startswith(prefix(folder))]
        self.folders = sorted({*outside, folder})
        return True

    def drop(self, folder: str) -> None:
        """Count `folder` among the indexed ones no more; `DistilvlError` if it is not one of them."""
        if folder not in self.folders:
            what = f"{folder} is not one of the indexed folders."
            raise DistilvlError(what, f"These are: {', '.join(self.folders[:_NAMED]) or 'none'}.")
        self.folders = [known for known in self.folders if known != folder]

    @classmethod
    def load(cls, index: Path, *, rebuilding: bool = False) -> About:
        """Read it, or that of what is to take its place; `DistilvlError`: not an index, a broken or a newer one."""
        path = index / (REBUILDING_NAME if rebuilding else ABOUT_NAME)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            inside = sorted(str(found.parent) for found in index.glob(f"*/{ABOUT_NAME}"))[:3]
            remedy = f"Did you mean {' or '.join(inside)}?" if inside else _REMEDY
            raise UnavailableError(f"{index} is not an index of photographs.", remedy) from error
        except ValueError as error:
            raise UnavailableError(f"{path} is not JSON.", _REMEDY) from error
        try:
            values = unsealed(values)
        except ValueError as error:
            raise UnavailableError(f"{path} is damaged: {error}.", _REMEDY) from error
        if isinstance(values, dict) and values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise UnavailableError(f"{path} is of another version of distilvl.", "Upgrade distilvl, or --rebuild.")
        try:
            model = ModelInfo(**values.pop("model"))
            stored = values.pop("stored", None)
            about = cls(model, stored=None if stored is None else StoredTeacher(**stored), **values)
            texts = [model.spec, model.name, model.revision, *about.folders, *(stored or {}).values()]
            numbers = type(model.dim) is type(about.trained_rows) is int and isinstance(about.rebuilding, bool)
            if not (numbers and all(isinstance(text, str) for text in texts) and about.home in _HOMES):
                raise TypeError
            about.rebuilding = rebuilding  # earlier versions emptied the index itself
        except (AttributeError, KeyError, TypeError) as error:
            raise UnavailableError(f"{path} has not the fields of an index.", _REMEDY) from error
        return about


def prefix(folder: str) -> str:
    """What the paths in a folder begin with."""
    return folder.rstrip("/") + "/"


class Unreadable(dict[str, tuple[int, int, str, str]]):
    """Files that could not be decoded: size, time, reason (a sentence) and kind (a phrase), by path.

    They are tried again when they change, or all of them when the limit of pixels or what distilvl reads does.
    """

    def __init__(self, index: Path) -> None:
        super().__init__()
        self._path = index / UNREADABLE_NAME
        self._rules = [DECODING_VERSION, max_pixels()]
        # Forgetting them costs one try each.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            files = saved["files"] if saved["rules"] == self._rules else {}
            self.update({path: (int(one[0]), int(one[1]), str(one[2]), str(one[3])) for path, one in files.items()})
        self._saved = dict(self)

    def save(self) -> None:
        """Write them, atomically, if there is anything new."""
        if self != self._saved:
            _save(self._path, {"rules": self._rules, "files": self})
            self._saved = dict(self)


def _save(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


@dataclass
class UpdateReport:
    """What an update did; counts are of files.

    Attributes:
        found: image files in the folder.
        unchanged: known with the same size and time; not read.
        added, changed: new in the table, and there before with another size or time.
        deleted: left the table, as the file is gone or can no longer be decoded.
        encoded: different pictures that the model encoded.
        stored: different pictures that got the embedding which its teacher's feature store holds.
        total, total_stored: files in the whole index after it, and those of them with a stored embedding.
        unreadable: path and reason of each file that was tried and cannot be decoded.
        remembered: files that could not be decoded before and have not changed since; not tried.
        seconds: of reading, decoding and encoding.
        left_out: all that the folder has and the index does not, by reason; names are absolute paths.
    """

    found: int = 0
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    encoded: int = 0
    stored: int = 0
    total: int = 0
    total_stored: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    remembered: int = 0
    seconds: float = 0.0
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def images_per_second(self) -> float:
        """Rate of encoding; 0 where nothing was encoded."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0

    def refuse(self, path: str, reason: str, kind: str) -> None:
        """Count a file that could not be read or decoded; `reason` is a sentence, `kind` a phrase."""
        self.unreadable.append((path, reason))
        self.left_out.add(kind, path)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        unreadable = [{"path": path, "reason": reason} for path, reason in self.unreadable]
        more = {"left_out": self.left_out.as_dict(), "images_per_second": self.images_per_second}
        return {**asdict(self), "unreadable": unreadable, **more}


def note_folder(index: Path, folder: str, found: LeftOut | None) -> None:
    """Make the index say that `found` was left out of `folder`, and no more of the folders in it; or nothing of it.

    Names are absolute paths, so that a folder within another is told of once. What it said of others stays.
    """
    inside, kept = prefix(folder), dict[str, LeftOut]()
    for known, one in read_left_out(index).items():
        if not prefix(known).startswith(inside):
            left = kept[known] = LeftOut()
            for reason, names in one.names.items():
                others = [name for name in names if not name.startswith(inside)]
                if count := one.counts[reason] - (len(names) - len(others)):
                    left.counts[reason], left.names[reason] = count, others
    write_left_out(index, kept if found is None else {**kept, folder: found})


def nothing_to_index(folder: Path, left_out: LeftOut) -> DistilvlError:
    """The error of a folder of which nothing is in the index."""
    if not left_out:
        return DistilvlError(f"{folder} holds no photographs.", "Give a folder that does.")
    remedy = "Convert these to JPEG or PNG, or see docs/data.md on what is read; "
    remedy += "--include-hidden reads hidden folders too."
    return DistilvlError(f"nothing in {folder} can be indexed; left out {'; '.join(left_out.lines())}.", remedy)


def made_in_python(path: Path) -> DistilvlError:
    """The error of an index whose model was an object, so that it cannot be loaded again by a spec."""
    return DistilvlError(f"{path} was made with a model that was open in Python.", "Give it again.")


def require_place(folder: Path) -> None:
    """`DistilvlError` where `folder` is there, and is neither an index nor empty but for what a killed run left."""
    held = folder.iterdir() if folder.is_dir() and not (folder / ABOUT_NAME).is_file() else ()
    if (folder.exists() and not folder.is_dir()) or any(not _is_of_a_killed_run(entry) for entry in held):
        raise DistilvlError(f"{folder} is there and is no index.", "Choose another folder for the index.")


def _is_of_a_killed_run(entry: Path) -> bool:
    return entry.name == LOCK_NAME or entry.name.startswith(PARTIAL_PREFIX)
