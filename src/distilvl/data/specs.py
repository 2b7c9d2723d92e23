"""Data sets named by a kind and a place: `hf:owner/name?caption=text`, `flickr30k:/data`, `unpaired:DIR,FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from distilvl.data.columns import Choice
from distilvl.data.remote import is_remote, refuse_login
from distilvl.errors import DistilvlError

LIST = ""
"""The kind of a spec that is a path: of a list, or of a folder with one."""

_COLUMNS = ("image", "caption", "split", "image_id", "root")

# The options that each kind takes after '?'; a list, or a folder with one, has no kind before its path.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    LIST: _COLUMNS,
    "hf": ("config", "revision", "image", "caption", "split", "image_id"),
    "parquet": _COLUMNS,
    "flickr8k": (),
    "flickr30k": (),
    "coco": (),
    "unpaired": (),
    "webdataset": ("split", "val", "test", "lanes", "buffer"),
}


@dataclass(frozen=True)
class Spec:
    """A source in its parts.

    Attributes:
        kind: such as `hf`.
        place: what stands after the colon: a name, a path, or empty.
        options: values of each option, in order; an option may be given several times.
    """

    kind: str
    place: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        """The value of an option that is given at most once; `DistilvlError` if it is given more often."""
        values = self.options.get(name, ())
        if len(values) > 1:
            raise DistilvlError(f"the data set {self} has {name!r} twice.", "Give it once.")
        return values[0] if values else None

    @property
    def columns(self) -> Choice:
        """The columns that `image`, `caption`, `split` and `image_id` name."""
        return Choice(self.one("image"), self.options.get("caption", ()), self.one("split"), self.one("image_id"))

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of images that `root` names."""
        return tuple(Path(root).expanduser() for root in self.options.get("root", ()))

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.kind else self.place


def parse_spec(source: str) -> Spec | None:
    """The parts of `kind:place?option=value&option=value`, or nothing if it does not begin with a known kind.

    Raises:
        DistilvlError: an option that the kind does not have, or one without a value; a password in an address.
    """
    refuse_login(source)
    kind, colon, place = source.partition(":")
    if not colon or not kind or kind not in _OPTIONS or place.startswith("//"):
        return None
    if not _OPTIONS[kind]:
        return Spec(kind, place)
    place, _, query = place.partition("?")
    return Spec(kind, place, _options(kind, place, query))


def parse_path(source: str) -> Spec:
    """A path with what stands after it: `photos.csv?image=FILE&root=/photos`, of the kind `LIST`.

    A path that is there is taken as it is, with any `?` in its name.

    Raises:
        DistilvlError: an option that lists do not have, or one without a value.
    """
    place, mark, query = source.rpartition("?")
    if not mark or Path(source).exists() or not Path(place).exists():
        return Spec(LIST, source)
    return Spec(LIST, place, _options(LIST, place, query))


def _options(kind: str, place: str, query: str) -> dict[str, tuple[str, ...]]:
    known = _OPTIONS[kind]
    options: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known or not value:
            # What follows an address may be a signature, which nobody else should see.
            shown = f"{kind}:{place}" if kind else place
            option = name if is_remote(place) else f"{name}={value}"
            raise DistilvlError(
                f"the data set {shown!r} has the option {option}.", f"{kind or 'A list'} takes {', '.join(known)}."
            )
        options[name] = (*options.get(name, ()), value)
    return options
