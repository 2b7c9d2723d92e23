"""One shard from front to back: which files of the archive make a sample, and which are refused.

`tarfile` takes a damaged header for the end of the archive and believes every size; both are checked here. Why not by
`webdataset`: docs/design/streaming.md. It ends a key at the first dot; where the files of a key are no sample by their
plain names, those of each longer name, such as `v1.0_cat.jpg` and `v1.0_cat.txt`, are looked at on their own.
"""

import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import BinaryIO

from distilvl.data.left_out import NO_CAPTION
from distilvl.data.remote import AnyPath, RemoteReadError
from distilvl.errors import DistilvlError, one_line
from distilvl.pictures.formats import image_suffixes, unread_pictures

IMAGE_KINDS = frozenset({"bmp", "jpeg", "jpg", "png", "ppm", "webp"})
TEXT_KINDS = frozenset({"json", "txt"})
NO_IMAGE = "no image beside the captions"
TWO_OF_A_KIND = "two files of a kind under one name"
REFUSED = "a file that is refused"

LARGEST_IMAGE, LARGEST_TEXT = 1 << 28, 1 << 20
"""Bytes that a member may claim; what claims more is refused before memory is taken for it."""
_LARGEST_HEADER = 1 << 20
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_REPAIR = "Write the shard again, or pass --skip-bad to use the records before the damage."
_UNDECIDED = 64  # files of one key that are held, without their contents, until it is known what the key's sample is


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard: its name there, the offset of its first byte, bytes, and its content where it was read."""

    name: str
    offset: int
    size: int
    data: bytes | None = None
    stem: str = ""  # the name up to its last dot: the key of its group where it has one dot
    kind: str = ""  # what follows the last dot, in lower case
    refused: str = ""  # why its sample is refused if this is needed


@dataclass(frozen=True, slots=True)
class Sample:
    """Files of one key: an image, and a text file or a JSON file or both, by kind; `where` is for messages."""

    where: str
    key: str
    image: Member
    texts: dict[str, Member]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file or record of a shard that is left out, counted by `reason`."""

    name: str  # shard, and file or key in it
    problem: str  # what follows the name in a message
    reason: str
    bad: bool = True  # whether it is an error unless such are left out

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


Note = Callable[[Unusable], None]


def samples(
    path: AnyPath, *, start: int = 0, read: Collection[str] = (), note: Note = lambda _: None
) -> Iterator[Sample]:
    """The complete samples of a shard from number `start` on, in order, forward only.

    Files of a sample stand next to each other, as `webdataset` and `tar --sort=name` write them. Folders, hidden files,
    `__meta__` files and other kinds of files do not count. `DistilvlError` at the place of any damage.

    Args:
        start: how many complete samples come before; only their headers are read.
        read: kinds of which `data` is wanted.
        note: told of each file or sample that is left out.
    """
    wanted, count, where = frozenset(read), 0, str(path)
    group = Group("", where)

    def usable(found: Iterator[Sample | Unusable]) -> Iterator[Sample]:
        nonlocal count
        for one in found:
            if isinstance(one, Unusable):
                note(one)
                continue
            count += 1
            if count > start:
                yield _with_contents(one, file, wanted)

    try:
        with path.open("rb") as file:
            for info in _headers(file):
                name = info.name.removeprefix("./")
                # `a/b.c.JPG` is of the key `a/b` and of the kind `c.jpg`, as `webdataset` has it.
                folder, slash, base = name.rpartition("/")
                stem, _, kind = base.partition(".")
                key, kind = folder + slash + stem, kind.lower()
                refused = _refusal(info, name, kind)
                part = None if refused else _part(info, name, file if kind in wanted and count >= start else None)
                if not refused and part is None:
                    continue
                if key != group.key:
                    yield from usable(group.rest())
                    group = Group(key, where)
                if part is None:
                    note(Unusable(f"{where}: {name!r}", refused, REFUSED))
                    group.refused.add(name.rpartition(".")[0] if kind.count(".") else key)
                else:
                    group.add(part)
                    yield from usable(group.ready())
            yield from usable(group.rest())
    except RemoteReadError as error:
        near = f"near record {count} ({group.key!r}): " if group.key else ""
        raise RemoteReadError(f"{near}{error}") from error
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", "Check the path.") from error
    # tarfile lets through what int(), split() and struct say to nonsense in a header.
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError, EOFError) as error:
        raise DistilvlError(f"{path} is no whole tar archive: {one_line(error)}.", _REPAIR) from error


def _with_contents(sample: Sample, file: BinaryIO, wanted: Collection[str]) -> Sample:
    """The sample, with what is wanted of it and was not read when it came by."""
    image = sample.image
    if image.data is None and not IMAGE_KINDS.isdisjoint(wanted):
        image = replace(image, data=_body(file, image.offset, image.size))
    for kind, member in sample.texts.items():
        if member.data is None and kind in wanted:
            sample.texts[kind] = replace(member, data=_body(file, member.offset, member.size))
    return replace(sample, image=image)


def _refusal(info: tarfile.TarInfo, name: str, kind: str) -> str:
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or re.match("[A-Za-z]:", name):
        return "is a name that leaves its folder"
    if _CONTROL.search(name) or any("\ud800" <= letter <= "\udfff" for letter in name):
        return "is not a name in UTF-8 without control characters"
    if not info.isdir() and (info.type not in _PLAIN or info.issparse()):
        return "is not a plain file (a link, a device or a sparse file)"
    return "" if info.isdir() else _size_refusal(info, kind)


def _size_refusal(info: tarfile.TarInfo, kind: str) -> str:
    image = kind in IMAGE_KINDS
    largest = LARGEST_IMAGE if image else LARGEST_TEXT if kind in TEXT_KINDS else None
    if largest is not None and info.size > largest:
        return f"claims {info.size:,} bytes, at most {largest:,} are read"
    return "is empty (0 bytes)" if image and info.size == 0 else ""


def _part(info: tarfile.TarInfo, name: str, file: BinaryIO | None) -> Member | None:
    """The member, read from `file` if given; None for a folder, a hidden file, another kind."""
    base = name.rpartition("/")[2]
    if info.isdir() or base.startswith(".") or ("/" not in name and name.startswith("__")):
        return None
    stem, dot, kind = name.rpartition(".")
    kind = kind.lower()
    picture = f".{kind}" in image_suffixes()
    if not dot or not (picture or kind in TEXT_KINDS or f".{kind}" in unread_pictures()):
        return None
    data = None if file is None else _body(file, info.offset_data, info.size)
    return Member(name, info.offset_data, info.size, data, stem, kind, _size_refusal(info, "png" if picture else kind))


class Group:
    """Neighbouring files whose names are equal up to the first dot, which part is the group's key."""

    def __init__(self, key: str, where: str) -> None:
        self.key, self._where, self._decided = key, where, False
        self._plain: list[Member] = []
        self._dotted: list[Member] = []
        self.refused: set[str] = set()  # names up to the last dot, all of whose files are

    def add(self, part: Member) -> None:
        """Take in a file that stands after the others."""
        if part.stem == self.key:
            self._plain.append(part)
        elif not self._is_sample():  # else it is one of the sample's other files, as `webdataset` has it
            self._dotted.append(part)

    def ready(self) -> Iterator[Sample | Unusable]:
        """What is complete while the group goes on: in a shard where all names begin alike, it is the whole shard."""
        self._decided = self._decided or len(self._dotted) > _UNDECIDED
        if not self._decided or self._is_sample() or self._dotted[0].stem == self._dotted[-1].stem:
            return
        last = self._dotted[-1].stem
        done = [part for part in self._dotted if part.stem != last]
        self._dotted = [part for part in self._dotted if part.stem == last]
        yield from self._runs(done)

    def rest(self) -> Iterator[Sample | Unusable]:
        """What is left when the group has ended."""
        plain = list(self._runs(self._plain))
        yield from plain
        if not any(isinstance(one, Sample) for one in plain):
            yield from (run for run in self._runs(self._dotted) if isinstance(run, Sample) or not self._plain)

    def _is_sample(self) -> bool:
        kinds = {part.kind for part in self._plain}
        return not kinds.isdisjoint(IMAGE_KINDS) and not kinds.isdisjoint(TEXT_KINDS)

    def _runs(self, parts: Sequence[Member]) -> Iterator[Sample | Unusable]:
        for stem, run in groupby(parts, attrgetter("stem")):
            if stem not in self.refused:
                yield _sample(stem, list(run), self._where)


def _sample(key: str, parts: Sequence[Member], where: str) -> Sample | Unusable:
    images = [part for part in parts if part.kind in IMAGE_KINDS]
    images = images or [part for part in parts if f".{part.kind}" in image_suffixes()]
    texts = [part for part in parts if part.kind in TEXT_KINDS]
    by_kind, name = {part.kind: part for part in texts}, f"{where}: {key!r}"
    for part in (*images, *texts):
        if part.refused:
            return Unusable(f"{where}: {part.name!r}", part.refused, REFUSED)
    if len(images) > 1 or len(by_kind) < len(texts):
        return Unusable(name, "has two files of a kind", TWO_OF_A_KIND)
    if images and by_kind:
        return Sample(f"{where}: {images[0].name}", key, images[0], by_kind)
    if images:
        return Unusable(name, "has no captions beside it (.txt or .json)", NO_CAPTION)
    unread = next((reason for part in parts if (reason := unread_pictures().get(f".{part.kind}"))), None)
    if unread is not None:
        return Unusable(name, f"has no image that is read: {unread}", unread, bad=False)
    # Longer names are often those of other files, which are nobody's captions.
    return Unusable(name, "has no image beside it", NO_IMAGE, bad="." not in key.rpartition("/")[2])


class _Headers:
    """The archive as `tarfile` sees it, which reads nothing but headers: no single one may fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell, self.seek, self._read = file.tell, file.seek, file.read

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._read(size)


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
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
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("a header is damaged, or the end mark is missing")


def _body(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise tarfile.ReadError("unexpected end of data")
    return data
