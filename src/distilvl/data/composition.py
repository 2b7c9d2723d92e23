"""Names with accents, which are written in two ways that look alike and mean the same file.

Most keyboards type them composed (NFC); macOS stores them taken apart (NFD).
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distilvl.data.records import FileImage, Record

_MOST = 64


def spellings(path: str) -> list[str]:
    """All spellings of a path with `/` in which each name is as given, composed or taken apart; `path` first.

    Of one with very many names that have accents, only those in which all are written alike.
    """
    if path.isascii():
        return [path]
    names = [_forms(name) for name in path.split("/")]
    count = 1
    for forms in names:
        count *= len(forms)
    if count > _MOST:
        return list(dict.fromkeys([path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]))
    return list(dict.fromkeys(["/".join(chosen) for chosen in itertools.product(*names)]))


def on_disk(path: Path) -> Path:
    """The path as the disk has it, if it is there in another spelling; else as it is."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    return next((Path(other) for other in spellings(path.as_posix())[1:] if os.path.lexists(other)), path)


def images_on_disk(records: Sequence[Record]) -> Sequence[Record]:
    """Records of a list, whose images' files are looked for in the other spellings where they are not as written."""
    found = [_record_on_disk(record) for record in records]
    return records if all(new is old for new, old in zip(found, records, strict=True)) else found


def _record_on_disk(record: Record) -> Record:
    if not isinstance(record.image, FileImage) or record.image.name.isascii():
        return record
    name = str(on_disk(record.image.path))
    return record if name == record.image.name else replace(record, image=FileImage(name))


def _forms(name: str) -> list[str]:
    return list(dict.fromkeys([name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]))
