"""Data sets named by a kind and a place: `hf:owner/name?caption=text`, `flickr30k:/data`, `unpaired:DIR,FILE`."""

from collections.abc import Mapping
from pathlib import Path

from distilvl.data.columns import Choice
from distilvl.data.remote import is_remote, refuse_login
from distilvl.errors import DistilvlError
from distilvl.io import specs

LIST = ""  # the kind of a spec that is a path: of a list, or of a folder with one
_NOUN = "data set"
_COLUMNS = ("image", "caption", "split", "image_id", "root")
# The options that each kind takes after '?'; a list, or a folder with one, has no kind before its path.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((LIST, "parquet"), _COLUMNS),
    "hf": ("config", "revision", "image", "caption", "split", "image_id"),
    **dict.fromkeys(("flickr8k", "flickr30k", "coco", "unpaired"), ()),
    "webdataset": ("split", "val", "test", "lanes", "buffer"),
}


class Spec(specs.Spec):
    """A data set's name in its parts."""

    @property
    def columns(self) -> Choice:
        """The columns that `image`, `caption`, `split` and `image_id` name."""
        return Choice(self.one("image"), self.options.get("caption", ()), self.one("split"), self.one("image_id"))

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of images that `root` names."""
        return tuple(Path(root).expanduser() for root in self.options.get("root", ()))


def parse_spec(source: str) -> Spec | None:
    """The parts of `kind:place?option=value`, None without a known kind; `DistilvlError` for wrong options, logins."""
    refuse_login(source)
    kind, place = specs.split_kind(source, set(_OPTIONS) - {LIST})
    if not kind:
        return None
    return _checked(source, kind) if _OPTIONS[kind] else Spec(kind, place, noun=_NOUN)


def parse_path(source: str) -> Spec:
    """`photos.csv?image=FILE&root=/photos`, of the kind `LIST`; a path that is there is taken as it is."""
    if Path(source).exists() or not Path(specs.parse_spec(source).place).exists():
        return Spec(LIST, source, noun=_NOUN)
    return _checked(source, LIST)


def _checked(source: str, kind: str) -> Spec:
    parsed = specs.parse_spec(source, (kind,), _NOUN)
    place, mark, _ = parsed.place.partition("?")
    if mark and is_remote(place):  # what follows an address may be a signature, which nobody else should see
        takes = f"It takes {', '.join(_OPTIONS[kind])}."
        raise DistilvlError(f"the data set '{kind}:{place}' has an unknown option.", takes)
    parsed.require(_OPTIONS[kind])
    for name, values in parsed.options.items():
        if not all(values):
            raise DistilvlError(f"the data set {str(parsed)!r} gives the option {name!r} no value.", "Give it one.")
    return Spec(parsed.kind, parsed.place, parsed.options, _NOUN)
