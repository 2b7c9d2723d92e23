"""Features that lie in other tools' files: `parquet:...`, `clip-retrieval:...`, `hf-dataset:...`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl

from distilvl.errors import DistilvlError

_SPEC = re.compile(r"(parquet|clip-retrieval|hf-dataset):([^?]+)(?:\?(.*))?", re.DOTALL)
_FORM = "Write parquet:PATH, clip-retrieval:FOLDER or hf-dataset:FOLDER, with ?id=COLUMN&image=COLUMN&... after it."


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """Where features lie, and under which names.

    Attributes:
        kind: `parquet`, `clip-retrieval` or `hf-dataset`.
        path: a file or folder.
        id: column of the images' ids, which are the dataset's `image_id`s.
        id_part: what of an id counts: `all`, `name` (without folders) or `stem` (and without the ending).
        image: column of the images' rows.
        caption: column of the captions, by which texts are found, unless `caption_id` is given.
        caption_id: column of the captions' ids, which are the dataset's caption ids.
        text: column of the captions' rows.
        split: of a dataset dictionary.
        name: the teacher's.
        revision: the teacher's; a hash of the files unless given.
    """

    kind: str
    path: Path
    id: str = "id"
    id_part: str = "all"
    image: str = "image_embedding"
    caption: str = "caption"
    caption_id: str | None = None
    text: str = "text_embedding"
    split: str | None = None
    name: str | None = None
    revision: str | None = None

    @property
    def teacher(self) -> str:
        """The teacher's name: as given, or the kind of import."""
        return self.name or self.kind

    def image_id(self, value: object) -> str:
        """The part of an id that counts."""
        path = PurePosixPath(str(value))
        return {"all": str(value), "name": path.name, "stem": path.stem}[self.id_part]


_OPTIONS = ("id", "id_part", "image", "caption", "caption_id", "text", "split", "name", "revision")
# clip-retrieval's own names.
_DEFAULTS = {"clip-retrieval": {"id": "image_path"}}


def is_import(spec: str) -> bool:
    """Whether `spec` names features to import."""
    return _SPEC.fullmatch(spec) is not None


def read_import_spec(spec: str) -> ImportSpec:
    """What `spec` says.

    Raises:
        DistilvlError: another form, an unknown option or value, or a path that is not there.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise DistilvlError(f"{spec!r} names no features to import.", _FORM)
    given = dict(parse_qsl(match[3] or "", keep_blank_values=True))
    for name, value in given.items():
        if name not in _OPTIONS or not value:
            near = difflib.get_close_matches(name, _OPTIONS, 1)
            hint = (
                f"Did you mean {near[0]!r}?" if near and name not in _OPTIONS else f"Known are: {', '.join(_OPTIONS)}."
            )
            raise DistilvlError(f"{match[1]}: cannot use the option {name!r} with the value {value!r}.", hint)
    if given.get("id_part", "all") not in ("all", "name", "stem"):
        raise DistilvlError(f"id_part is {given['id_part']!r}.", "It is all, name or stem.")
    path = Path(match[2])
    if not path.exists():
        raise DistilvlError(f"there are no features at {path}.", _FORM)
    return replace(ImportSpec(kind=match[1], path=path), **{**_DEFAULTS.get(match[1], {}), **given})
