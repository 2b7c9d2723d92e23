"""Which files of a shard make a sample: those of one key, which is the name up to the first dot, or up to the last.

`webdataset` ends a key at the first dot: `b.seg.png` is a file of `b`, beside `b.png` and `b.txt`. Photographs are
often called `v1.0_cat.jpg`, though. So where the files of a key are no sample by their plain names, those of each
longer name, such as `v1.0_cat.jpg` and `v1.0_cat.txt`, are looked at on their own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from distilvl.data.left_out import NO_CAPTION
from distilvl.pictures.formats import image_suffixes, unread_pictures

IMAGE_KINDS = frozenset({"bmp", "jpeg", "jpg", "png", "ppm", "webp"})
TEXT_KINDS = frozenset({"json", "txt"})
NO_IMAGE = "no image beside the captions"
TWO_OF_A_KIND = "two files of a kind under one name"
REFUSED = "a file that is refused"

_UNDECIDED = 64  # files of one key that are held, without their contents, until it is known what the key's sample is


@functools.cache
def more_image_kinds() -> frozenset[str]:
    """Kinds that are the image of a sample only if it has none of `IMAGE_KINDS`."""
    return frozenset(suffix[1:] for suffix in image_suffixes()) - IMAGE_KINDS


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
class Part:
    """A member in its group.

    Attributes:
        stem: its name up to the last dot; the group's key where the name has one dot.
        kind: what follows, in lower case.
        member: the file.
        refused: why its sample is refused if this is needed; mostly empty.
    """

    stem: str
    kind: str
    member: Member
    refused: str = ""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file or record of a shard that is left out.

    Attributes:
        name: shard, and file or key in it.
        problem: what follows the name in a message.
        reason: how `LeftOut` counts it.
        bad: whether it is an error unless such are skipped.
    """

    name: str
    problem: str
    reason: str
    bad: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


@dataclass(frozen=True, slots=True)
class Found:
    """The parts of a sample: its key, the image, text files by kind."""

    key: str
    image: Member
    texts: dict[str, Member]


class Group:
    """Neighbouring files whose names are equal up to the first dot.

    Args:
        key: that part of their names.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._plain: list[Part] = []
        self._dotted: list[Part] = []
        self._refused: set[str] = set()
        self._decided = False

    def add(self, part: Part) -> None:
        """Take in a file that stands after the others."""
        if part.stem == self.key:
            self._plain.append(part)
        elif not self._is_sample():  # else it is one of the sample's other files, as `webdataset` has it
            self._dotted.append(part)

    def refuse(self, stem: str) -> None:
        """That a file with this name up to the last dot was refused, and so all of that name."""
        self._refused.add(stem)

    def ready(self, where: str) -> Iterator[Found | PassedOver]:
        """What is complete while the group goes on: in a shard where all names begin alike, it is the whole shard."""
        self._decided = self._decided or len(self._dotted) > _UNDECIDED
        if not self._decided or self._is_sample() or self._dotted[0].stem == self._dotted[-1].stem:
            return
        last = self._dotted[-1].stem
        done = [part for part in self._dotted if part.stem != last]
        self._dotted = [part for part in self._dotted if part.stem == last]
        yield from self._runs(done, where)

    def rest(self, where: str) -> Iterator[Found | PassedOver]:
        """What is left when the group has ended."""
        plain = _sample(self.key, self._plain, where) if self._plain and self.key not in self._refused else None
        if plain is not None:
            yield plain
        if not isinstance(plain, Found):
            runs = self._runs(self._dotted, where)
            yield from (run for run in runs if isinstance(run, Found) or not self._plain)

    def _is_sample(self) -> bool:
        kinds = {part.kind for part in self._plain}
        return not kinds.isdisjoint(IMAGE_KINDS) and not kinds.isdisjoint(TEXT_KINDS)

    def _runs(self, parts: Sequence[Part], where: str) -> Iterator[Found | PassedOver]:
        """What the files of each longer name make."""
        for stem, run in groupby(parts, lambda part: part.stem):
            if stem not in self._refused:
                yield _sample(stem, list(run), where)


def _sample(key: str, parts: Sequence[Part], where: str) -> Found | PassedOver:
    """The sample that these files make, or why they make none."""
    images = [part for part in parts if part.kind in IMAGE_KINDS]
    images = images or [part for part in parts if part.kind in more_image_kinds()]
    texts = [part for part in parts if part.kind in TEXT_KINDS]
    by_kind = {part.kind: part.member for part in texts}
    name = f"{where}: {key!r}"
    refused = next((part for part in (*images, *texts) if part.refused), None)
    if refused is not None:
        return PassedOver(f"{where}: {refused.member.name!r}", refused.refused, REFUSED)
    if len(images) > 1 or len(by_kind) < len(texts):
        return PassedOver(name, "has two files of a kind", TWO_OF_A_KIND)
    if images and by_kind:
        return Found(key, images[0].member, by_kind)
    if images:
        return PassedOver(name, "has no captions beside it (.txt or .json)", NO_CAPTION)
    unread = next((reason for part in parts if (reason := unread_pictures().get(f".{part.kind}"))), None)
    if unread is not None:
        return PassedOver(name, f"has no image that is read: {unread}", unread, bad=False)
    # Longer names are often those of other files, which are nobody's captions.
    return PassedOver(name, "has no image beside it", NO_IMAGE, bad="." not in key.rpartition("/")[2])
