"""`manifest.json` of an exported folder: what the files are, how to prepare inputs, what was measured."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distilvl.errors import DistilvlError
from distilvl.io.checksums import unsealed
from distilvl.io.hashes import file_hash
from distilvl.runtime.inputs import Step, check_steps

MANIFEST_NAME = "manifest.json"
FORMAT = "distilvl-export"
VERSION = 1

_REMEDY = "Export the student again, or copy the whole folder again."


@dataclass(frozen=True)
class File:
    """What a file must be: SHA-256 of its bytes, in hexadecimal, and their number."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Towers:
    """The graphs of one dtype: names of the files, and layers that were left in fp32 by wish."""

    image: str
    text: str
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A checked `manifest.json`."""

    name: str  # of the student
    revision: str  # hash of the student's weights, configuration and vocabulary
    dim: int  # D, the embedding dimension
    normalized: bool  # whether embeddings come out L2-normalised
    size: tuple[int, int]  # height and width of the pixels that the image graph takes
    steps: tuple[Step, ...]  # from an RGB picture to such pixels
    tokenizer: str  # name of its file
    max_length: int  # tokens of a text, special ones included; longer texts are cut
    pad_id: int  # what short rows of token ids are filled with
    precisions: Mapping[str, Towers]  # the graphs, by `fp32`, `fp16` or `int8`
    files: Mapping[str, File]  # what each file must be, by name
    scores: Mapping[str, Any]  # what was measured when it was exported, for people; nothing here needs it
    dims: tuple[int, ...] = ()  # other dimensions to which embeddings may be cut, by the student's training

    def smallest(self) -> str:
        """The dtype whose two graphs take the fewest bytes."""
        return min(self.precisions, key=lambda name: sum(self.files[file].size for file in self.graphs(name)))

    def graphs(self, dtype: str) -> tuple[str, str]:
        """Files of the image and of the text tower."""
        towers = self.precisions[dtype]
        return towers.image, towers.text

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `read_manifest` reads."""
        towers = {name: {**asdict(one), "kept": list(one.kept)} for name, one in self.precisions.items()}
        return {
            "format": FORMAT, "version": VERSION, "name": self.name, "revision": self.revision,
            "width": self.dim, "widths": list(self.dims), "normalized": self.normalized,
            "image": {"size": list(self.size), "steps": [dict(step) for step in self.steps]},
            "text": {"tokenizer": self.tokenizer, "max_length": self.max_length, "pad_id": self.pad_id},
            "precisions": towers,
            "files": {name: asdict(file) for name, file in self.files.items()}, "scores": dict(self.scores),
        }  # fmt: skip


def is_export(folder: str | Path) -> bool:
    """Whether `folder` says of itself that it is an exported student; nothing else is checked."""
    try:
        return bool(_read_object(Path(folder))["format"] == FORMAT)
    except (DistilvlError, KeyError):
        return False


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of an exported folder, `DistilvlError` if anything is wrong in it; `check_file` checks the rest."""
    folder, fields = Path(folder), _read_object(Path(folder))
    if fields.get("format") != FORMAT:
        raise DistilvlError(f"{folder} is not an exported student.", "Give a folder that `distilvl export` wrote.")
    if fields.get("version") != VERSION:
        what = f"{folder} has version {fields.get('version')!r} of the format; this distilvl reads {VERSION}."
        raise DistilvlError(what, "Install the distilvl that exported it, or export again.")
    try:
        return _parsed(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DistilvlError(f"{folder / MANIFEST_NAME} is damaged: {what}.", _REMEDY) from error


def check_file(folder: Path, name: str, expected: File) -> Path:
    """The path of a file, if it is as the manifest says; else `DistilvlError`."""
    path = folder / name
    try:
        size = path.stat().st_size
        if size != expected.size:
            raise DistilvlError(f"{path} has {size:,} bytes instead of {expected.size:,}.", _REMEDY)
        if file_hash(path) != expected.sha256:
            raise DistilvlError(f"{path} is damaged: its SHA-256 is not the manifest's.", _REMEDY)
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", _REMEDY) from error
    return path


def _read_object(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "Give a folder that `distilvl export` wrote."
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", remedy) from error
    except ValueError as error:
        raise DistilvlError(f"{path} is not JSON.", _REMEDY) from error
    if not isinstance(fields, dict):
        raise DistilvlError(f"{path} is not a JSON object.", _REMEDY)
    try:
        return unsealed(fields)  # type: ignore[no-any-return]
    except ValueError as error:
        raise DistilvlError(f"{path} is damaged: {error}.", _REMEDY) from error


def _parsed(fields: dict[str, Any]) -> Manifest:
    """Checked by hand: pydantic would make the import of the runtime a third slower."""
    image, text = fields["image"], fields["text"]
    height, width = image["size"]
    files = {_plain(name): File(_text(file["sha256"]), _count(file["size"])) for name, file in fields["files"].items()}

    def known(name: Any) -> str:
        if _plain(name) not in files:
            raise ValueError(f"{name} is not among its files")
        return str(name)

    precisions = {}
    for name, one in fields["precisions"].items():
        precisions[name] = Towers(known(one["image"]), known(one["text"]), tuple(one["kept"]))
    if not precisions:
        raise ValueError("it names no dtype")
    return Manifest(
        name=_text(fields["name"]), revision=_text(fields["revision"]),
        dim=_count(fields["width"]), normalized=bool(fields["normalized"]),
        size=(_count(height), _count(width)), steps=check_steps(image["steps"]),
        tokenizer=known(text["tokenizer"]), max_length=_count(text["max_length"]),
        pad_id=_count(text["pad_id"], least=0), precisions=precisions, files=files, scores=dict(fields["scores"]),
        dims=tuple(_count(dim) for dim in fields.get("widths", ())),  # the first exports have none
    )  # fmt: skip


def _plain(name: Any) -> str:
    """A file name without folders: nothing that a manifest names can lie outside its folder."""
    if not isinstance(name, str) or not name or name in (".", "..") or any(part in name for part in "/\\:\0"):
        raise ValueError(f"{name!r} is not the name of a file in the folder")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _count(value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is not a number of at least {least}")
    return value
