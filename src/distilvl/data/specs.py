"""Data sets named by a kind and a place: `hf:owner/name?caption=text`, `flickr30k:/data`, `unpaired:DIR,FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from distilvl.data.remote import is_remote, refuse_login
from distilvl.errors import DistilvlError

# The options that each kind takes after '?'.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "hf": ("config", "revision", "image", "caption"),
    "parquet": ("image", "caption"),
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
            raise DistilvlError(f"the data set {self.kind}:{self.place} has {name!r} twice.", "Give it once.")
        return values[0] if values else None


def parse_spec(source: str) -> Spec | None:
    """The parts of `kind:place?option=value&option=value`, or nothing if it does not begin with a known kind.

    Raises:
        DistilvlError: an option that the kind does not have, or one without a value; a password in an address.
    """
    refuse_login(source)
    kind, colon, place = source.partition(":")
    if not colon or kind not in _OPTIONS or place.startswith("//"):
        return None
    known = _OPTIONS[kind]
    if not known:
        return Spec(kind, place)
    place, _, query = place.partition("?")
    options: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known or not value:
            # What follows an address may be a signature, which nobody else should see.
            shown = f"{kind}:{place}" if is_remote(place) else source
            option = name if is_remote(place) else f"{name}={value}"
            raise DistilvlError(
                f"the data set {shown!r} has the option {option}.", f"{kind}: takes {', '.join(known)}."
            )
        options[name] = (*options.get(name, ()), value)
    return Spec(kind, place, options)
