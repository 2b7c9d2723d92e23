"""One shard from front to back: which files of the archive make a sample, and which are refused.

Nothing is extracted, so a name is no more than a label here; those that would leave a folder are refused all the same,
since whoever wrote them meant harm. `tarfile` parses the headers. Left to itself it takes a damaged header for the end
of the archive, and believes every size that it is told; both would go unnoticed, so both are checked here.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from distilvl.data.remote import AnyPath, RemoteReadError
from distilvl.errors import DistilvlError

IMAGE_KINDS = frozenset({"bmp", "jpeg", "jpg", "png", "ppm", "webp"})
TEXT_KINDS = frozenset({"json", "txt"})
LARGEST_IMAGE = 1 << 28
LARGEST_TEXT = 1 << 20
"""Bytes that a member may claim; what claims more is refused before memory is taken for it."""

_LARGEST_HEADER = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_REPAIR = "Write the shard again, or pass --skip-bad to use the records before the damage."

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard.

    Attributes:
        name: as the archive has it.
        offset: of its first byte in the shard.
        size: bytes.
        data: its content, where it was asked for.
    """

    name: str
    offset: int
    size: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Files of one key: an image, and a text file or a JSON file or both.

    Attributes:
        where: the shard and the image in it, for messages.
        key: the name up to the first dot after the last slash.
        image: one of `IMAGE_KINDS`.
        texts: by kind, `txt` or `json`.
    """

    where: str
    key: str
    image: Member
    texts: dict[str, Member]


def samples(
    path: AnyPath, *, start: int = 0, read: Collection[str] = (), note: Note = lambda _: None
) -> Iterator[Sample]:
    """The complete samples of a shard from number `start` on, in order, forward only.

    Files of a sample stand next to each other, as `webdataset` and `tar --sort=name` write them. Folders, hidden files,
    `__meta__` files and other kinds of files are passed over.

    Args:
        path: of an uncompressed tar archive.
        start: how many complete samples to pass over; only their headers are read.
        read: kinds of which `data` is wanted.
        note: told of each file or sample that is left out, in a phrase that names it.

    Raises:
        DistilvlError: not a tar archive, or a damaged or truncated one, at the place of the damage.
        RemoteReadError: a remote shard's server gave no more.
    """
    wanted, count = frozenset(read), 0
    group = _Group("")
    with (
        _named_damage(path, lambda: f"near record {count} ({group.key!r}): " if group.key else ""),
        path.open("rb") as file,
    ):
        for info in _headers(file):
            name = info.name.removeprefix("./")
            key, kind = _split(name)
            refused = _refusal(info, name, kind)
            if not refused and not _is_part(info, name, kind):
                continue
            if key != group.key:
                if (sample := group.finish(path, note)) is not None:
                    if count >= start:
                        yield sample
                    count += 1
                group = _Group(key)
            if refused:
                note(f"{path}: {name!r} {refused}")
                group.refused = True
            else:
                body = _body(file, info) if kind in wanted and count >= start else None
                group.parts.append((kind, Member(name, info.offset_data, info.size, body)))
        if (sample := group.finish(path, note)) is not None and count >= start:
            yield sample


@dataclass
class _Group:
    """Neighbouring files with the same key."""

    key: str
    parts: list[tuple[str, Member]] = field(default_factory=list)
    refused: bool = False

    def finish(self, path: AnyPath, note: Note) -> Sample | None:
        """The sample, if it is one."""
        if self.refused or not self.parts:
            return None
        images = [member for kind, member in self.parts if kind in IMAGE_KINDS]
        texts = {kind: member for kind, member in self.parts if kind in TEXT_KINDS}
        if len(images) == 1 and texts and len(texts) + 1 == len(self.parts):
            return Sample(f"{path}: {images[0].name}", self.key, images[0], texts)
        if len(images) + len(texts) < len(self.parts) or len(images) > 1:
            lack = "has two files of a kind"
        else:
            lack = "has no captions beside it (.txt or .json)" if images else "has no image beside it"
        note(f"{path}: {self.key!r} {lack}")
        return None


def _split(name: str) -> tuple[str, str]:
    """Key and kind: `a/b.c.JPG` is of the key `a/b` and of the kind `c.jpg`, as `webdataset` has it."""
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    return folder + slash + stem, kind.lower()


def _refusal(info: tarfile.TarInfo, name: str, kind: str) -> str:
    """Why this member is refused, or nothing."""
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or re.match("[A-Za-z]:", name):
        return "is a name that leaves its folder"
    if _CONTROL.search(name) or any("\ud800" <= letter <= "\udfff" for letter in name):
        return "is not a name in UTF-8 without control characters"
    if info.isdir():
        return ""
    if info.type not in _PLAIN or info.issparse():
        return "is not a plain file (a link, a device or a sparse file)"
    largest = LARGEST_IMAGE if kind in IMAGE_KINDS else LARGEST_TEXT if kind in TEXT_KINDS else None
    if largest is not None and info.size > largest:
        return f"claims {info.size:,} bytes, at most {largest:,} are read"
    if kind in IMAGE_KINDS and info.size == 0:
        return "is empty (0 bytes)"
    return ""


def _is_part(info: tarfile.TarInfo, name: str, kind: str) -> bool:
    hidden = name.rpartition("/")[2].startswith(".")
    meta = "/" not in name and name.startswith("__")
    return not (info.isdir() or hidden or meta) and (kind in IMAGE_KINDS or kind in TEXT_KINDS)


class _Headers:
    """The archive as `tarfile` sees it, which reads nothing but headers: no single one may fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell, self.seek, self._read = file.tell, file.seek, file.read

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._read(size)


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Every member, the end mark checked."""
    end, reached = file.seek(0, 2), 0
    file.seek(0)
    archive = tarfile.TarFile(fileobj=_Headers(file), encoding="utf-8")  # type: ignore[arg-type]
    while (info := archive.next()) is not None:
        if info.size < 0 or archive.offset <= reached:
            raise tarfile.ReadError("a header has a negative size")
        reached = archive.offset
        if reached > end:
            raise tarfile.ReadError(f"{info.name!r} claims {info.size:,} bytes, the file ends before them")
        archive.members.clear()  # type: ignore[attr-defined]
        yield info
    file.seek(archive.offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise tarfile.ReadError("a header is damaged, or the end mark is missing")


def _body(file: BinaryIO, info: tarfile.TarInfo) -> bytes:
    file.seek(info.offset_data)
    data = file.read(info.size)
    if len(data) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


@contextmanager
def _named_damage(path: AnyPath, place: Callable[[], str]) -> Iterator[None]:
    """All that a damaged archive can raise, as the one error that names it."""
    try:
        yield
    except RemoteReadError as error:
        raise RemoteReadError(f"{place()}{error}") from error
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", "Check the path.") from error
    # tarfile lets through what int(), split() and struct say to nonsense in a header.
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError, EOFError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DistilvlError(f"{path} is no whole tar archive: {reason}.", _REPAIR) from error
