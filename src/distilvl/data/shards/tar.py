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
from dataclasses import dataclass, replace
from typing import BinaryIO

from distilvl.data.remote import AnyPath, RemoteReadError
from distilvl.data.shards.groups import (
    IMAGE_KINDS,
    REFUSED,
    TEXT_KINDS,
    Found,
    Group,
    Member,
    Part,
    PassedOver,
    more_image_kinds,
)
from distilvl.errors import DistilvlError
from distilvl.pictures.formats import unread_pictures

LARGEST_IMAGE = 1 << 28
LARGEST_TEXT = 1 << 20
"""Bytes that a member may claim; what claims more is refused before memory is taken for it."""

_LARGEST_HEADER = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_REPAIR = "Write the shard again, or pass --skip-bad to use the records before the damage."

Note = Callable[[PassedOver], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """Files of one key: an image, and a text file or a JSON file or both.

    Attributes:
        where: the shard and the image in it, for messages.
        key: the name up to the first dot after the last slash, or up to the last one (`groups.py`).
        image: one of `IMAGE_KINDS`, or of `more_image_kinds`.
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
        note: told of each file or sample that is left out.

    Raises:
        DistilvlError: not a tar archive, or a damaged or truncated one, at the place of the damage.
        RemoteReadError: a remote shard's server gave no more.
    """
    wanted, count, where = frozenset(read), 0, str(path)
    group = Group("")

    def sample(found: Found | PassedOver) -> Iterator[Sample]:
        nonlocal count
        if isinstance(found, PassedOver):
            note(found)
            return
        count += 1
        if count > start:
            yield _read(found, where, file, wanted)

    with (
        _named_damage(path, lambda: f"near record {count} ({group.key!r}): " if group.key else ""),
        path.open("rb") as file,
    ):
        for info in _headers(file):
            name = info.name.removeprefix("./")
            key, kind = _split(name)
            refused = _refusal(info, name, kind)
            part = None if refused else _part(info, name, file if kind in wanted and count >= start else None)
            if not refused and part is None:
                continue
            if key != group.key:
                for found in group.rest(where):
                    yield from sample(found)
                group = Group(key)
            if part is None:
                note(PassedOver(f"{where}: {name!r}", refused, REFUSED))
                group.refuse(name.rpartition(".")[0] if kind.count(".") else key)
                continue
            group.add(part)
            for found in group.ready(where):
                yield from sample(found)
        for found in group.rest(where):
            yield from sample(found)


def _read(found: Found, where: str, file: BinaryIO, wanted: Collection[str]) -> Sample:
    """The sample, with what is wanted of it and was not read when it came by."""
    image, texts = found.image, found.texts
    if image.data is None and not IMAGE_KINDS.isdisjoint(wanted):
        image = replace(image, data=_body(file, image.offset, image.size))
    for kind, member in texts.items():
        if member.data is None and kind in wanted:
            texts[kind] = replace(member, data=_body(file, member.offset, member.size))
    return Sample(f"{where}: {image.name}", found.key, image, texts)


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
    return _size_refusal(info, kind)


def _size_refusal(info: tarfile.TarInfo, kind: str) -> str:
    image = kind in IMAGE_KINDS
    largest = LARGEST_IMAGE if image else LARGEST_TEXT if kind in TEXT_KINDS else None
    if largest is not None and info.size > largest:
        return f"claims {info.size:,} bytes, at most {largest:,} are read"
    return "is empty (0 bytes)" if image and info.size == 0 else ""


def _part(info: tarfile.TarInfo, name: str, file: BinaryIO | None) -> Part | None:
    """The member, read from `file` if that is given, as a part of a group.

    Nothing if it can be none: a folder, a hidden file, one of another kind.
    """
    base = name.rpartition("/")[2]
    if info.isdir() or base.startswith(".") or ("/" not in name and name.startswith("__")):
        return None
    stem, dot, kind = name.rpartition(".")
    kind = kind.lower()
    if not dot or not (kind in IMAGE_KINDS or kind in TEXT_KINDS or _may_be_picture(kind)):
        return None
    refused = _size_refusal(info, "png" if kind in more_image_kinds() else kind)
    data = None if file is None else _body(file, info.offset_data, info.size)
    return Part(stem, kind, Member(name, info.offset_data, info.size, data), refused)


def _may_be_picture(kind: str) -> bool:
    return kind in more_image_kinds() or f".{kind}" in unread_pictures()


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


def _body(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
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
