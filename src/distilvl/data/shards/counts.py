"""The captions of records, and how many records each shard has: counted once, without reading images."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distilvl.data.left_out import NO_CAPTION, BadItemError, LeftOut
from distilvl.data.listing import clean_captions, in_brackets
from distilvl.data.remote import AnyPath, RemotePath, RemoteReadError
from distilvl.data.shards.tar import TEXT_KINDS, Sample, Unusable, samples
from distilvl.data.tables import decode_text
from distilvl.errors import DistilvlError
from distilvl.io.files import make_folder, write_atomically
from distilvl.io.progress import progress


def captions_of(sample: Sample) -> tuple[str, ...]:
    """All captions, cleaned (`clean_caption`), without blank ones and null; at least one, else a `DistilvlError`.

    Of the `txt` file, one a line, or else of the `json` file: its `caption`, a text, or `captions`, a list of texts.
    """
    kind = "txt" if "txt" in sample.texts else "json"
    member = sample.texts[kind]
    where = f"{sample.where} ({member.name})"
    assert member.data is not None  # the caller read texts
    text = decode_text(member.data, where)
    found = text.split("\n") if kind == "txt" else _in_json(text, where)
    captions = tuple(caption for caption in clean_captions(found, where) if caption.strip())
    if not captions:
        remedy = "Write one, or pass --skip-bad to leave the record out."
        raise BadItemError(f"{where} holds no caption", remedy, where, NO_CAPTION)
    return captions


def _in_json(text: str, where: str) -> list[Any]:
    remedy = "Write an object with 'caption' or 'captions'."
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DistilvlError(f"{where} is not valid JSON.", remedy) from error
    if not isinstance(value, dict):
        raise DistilvlError(f"{where} is not an object.", remedy)
    several = value.get("captions") or []
    if not isinstance(several, list):
        raise DistilvlError(f"{where}: 'captions' is not a list.", "Write a list of texts.")
    return [*several, value["caption"]] if "caption" in value else several


def reason_of(error: DistilvlError) -> str:
    """How `LeftOut` counts a record whose captions raise this."""
    return error.reason if isinstance(error, BadItemError) else "captions that cannot be read"


DAMAGED = "damage: what follows it in the shard"
COUNTS_NAME = "distilvl-counts.json"
_VERSION = 2  # 1 left out files with several dots in their names without counting them
_logger = logging.getLogger("distilvl")


class ShardCount(BaseModel):
    """What a shard's headers and texts say."""

    model_config = ConfigDict(extra="forbid", strict=True)
    bytes: int  # of the archive, as `mtime_ns`; it is counted again when they differ
    mtime_ns: int
    version: str = ""  # of a remote one, its ETag or time, in place of `mtime_ns`
    records: int = Field(0, ge=0)  # complete samples, those before the damage if there is one
    captions: int = Field(0, ge=0)  # of these samples
    # Files and samples that are refused or incomplete, and samples among `records` with bad captions; the first of them
    # in a phrase; these, and pictures of formats that are not read, by reason.
    bad: int = Field(0, ge=0)
    problem: str = ""
    left_out: LeftOut = Field(default_factory=LeftOut)


class _CountsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: int = Field(_VERSION, ge=_VERSION, le=_VERSION)
    shards: dict[str, ShardCount] = {}


def count_records(paths: Sequence[AnyPath], *, skip_bad: bool = False) -> list[ShardCount]:
    """What each shard holds, in the order of `paths`.

    Shards that are not in the `distilvl-counts.json` of their folder, or have changed since, are read once (forward,
    without images) and added to it, where it can be written. For remote folders, which may be read-only, the file is
    in `$XDG_CACHE_HOME/distilvl/shard-counts` (`~/.cache`, if that is not set). Unless `skip_bad`, a damaged shard, a
    refused file, an incomplete sample and bad captions are a `DistilvlError`.
    """
    known: dict[AnyPath, ShardCount] = {}
    with progress("counting shards", len(paths)) as ticker:
        in_order = sorted(set(paths), key=lambda path: (path.parent.parts, path.name))
        for folder, group in groupby(in_order, key=lambda path: path.parent):
            kept, new = _kept_in(folder), False
            file = _read(kept)
            try:
                for path in group:
                    count, state = file.shards.get(path.name), _state(path)
                    # A remote one without a version tells nothing of a change.
                    known_well = state[2] or not isinstance(path, RemotePath)
                    if count is None or not known_well or state != (count.bytes, count.mtime_ns, count.version):
                        count = file.shards[path.name] = _count(path, *state)
                        new = True
                    known[path] = count
                    ticker.advance()
            finally:
                if new:
                    _write(kept, file)
    found = [known[path] for path in paths]
    bad = sum(count.bad for count in found)
    if bad and not skip_bad:
        first = next(count.problem for count in found if count.problem).rstrip(".")
        remedy = "Write the shard again, or pass --skip-bad to leave such records out."
        raise DistilvlError(f"{first} ({bad} such in {len(found)} shards).", remedy)
    return found


def _kept_in(folder: AnyPath) -> Path:
    if isinstance(folder, Path):
        return folder / COUNTS_NAME
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "distilvl" / "shard-counts" / f"{hashlib.sha256(folder.url.encode()).hexdigest()[:32]}.json"


def _state(path: AnyPath) -> tuple[int, int, str]:
    """What differs when an archive has changed: `bytes`, `mtime_ns` and `version` of its count."""
    if isinstance(path, RemotePath):
        size, version = path.version()
        return size, 0, version
    status = path.stat()
    return status.st_size, status.st_mtime_ns, ""


def _count(path: AnyPath, size: int, mtime_ns: int, version: str) -> ShardCount:
    count = ShardCount(bytes=size, mtime_ns=mtime_ns, version=version)

    def note(found: Unusable) -> None:
        count.left_out.add(found.reason, found.name)
        if found.bad:
            count.bad, count.problem = count.bad + 1, count.problem or str(found)

    def note_error(name: str, error: DistilvlError, reason: str) -> None:
        note(Unusable(name, str(error).removeprefix(name).strip(), reason))

    try:
        for sample in samples(path, read=TEXT_KINDS, note=note):
            count.records += 1
            try:
                count.captions += len(captions_of(sample))
            except DistilvlError as error:
                note_error(sample.where, error, reason_of(error))
    except RemoteReadError:
        raise  # the connection's fault: what came before is not all there is
    except DistilvlError as error:
        note_error(str(path), error, DAMAGED)
    count.left_out = LeftOut.from_dict(count.left_out.as_dict())  # ten names are kept
    return count


def no_records(name: str, left_out: LeftOut) -> DistilvlError:
    """The error for shards without a record that can be used: says what was there instead."""
    return DistilvlError(f"{name} has no records{in_brackets(left_out)}.", "Give shards with images and captions.")


def _read(path: Path) -> _CountsFile:
    try:
        return _CountsFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):  # missing, or not ours: the shards say themselves what they hold
        return _CountsFile()


def _write(path: Path, file: _CountsFile) -> None:
    try:
        make_folder(path.parent)
        write_atomically(path, (file.model_dump_json(indent=1) + "\n").encode())
    except DistilvlError:
        _logger.info("%s cannot be written: the shards will be counted again next time", path)
