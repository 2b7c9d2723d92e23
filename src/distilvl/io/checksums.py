"""What tells a file that was changed on the disk from one that was written so: sums of a folder's files, and of values.

A folder's are in `SHA256SUMS`, which `sha256sum -c` reads, too. Values that stand in JSON have one beside them. Folders
and values without a checksum, as earlier versions wrote them, are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilvl.errors import DistilvlError
from distilvl.io.files import write_atomically
from distilvl.io.hashes import file_hash

SUMS_NAME = "SHA256SUMS"
_BY_HAND = "README.md"  # people write into model cards
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_KEY = "checksum"


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` of all files in `folder`, at any depth, but for its `README.md`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_hash(folder / name)}  {name}\n" for name in names if name not in (SUMS_NAME, _BY_HAND)]
    write_atomically(folder / SUMS_NAME, "".join(lines).encode())


def check_sums(folder: Path) -> None:
    """`DistilvlError` for a file in `folder` that is not as its `SHA256SUMS` says; nothing where there is none."""
    sums = folder / SUMS_NAME
    if not sums.is_file():
        return
    remedy = f"Copy the folder again; if the change is yours, delete {sums}."
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise DistilvlError(f"{sums} is damaged: {line[:80]!r} is no checksum of a file.", remedy)
        path = folder / found[2]
        try:
            is_same = file_hash(path) == found[1]
        except OSError as error:
            raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", remedy) from error
        if not is_same:
            raise DistilvlError(f"{path} is not as it was written: its SHA-256 is not that of {SUMS_NAME}.", remedy)


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, which JSON can hold, with their checksum as the last one."""
    return {**values, _KEY: _sum(values)}


def unsealed(values: Any) -> Any:
    """What `sealed` took; `ValueError` where the checksum is another. Anything else comes back as it is."""
    if not isinstance(values, dict) or _KEY not in values:
        return values
    rest = {name: value for name, value in values.items() if name != _KEY}
    if values[_KEY] != _sum(rest):
        raise ValueError("its checksum is not that of its values")
    return rest


def _sum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
