"""`left-out.json`: what was passed over, kept in the folder of what was made of the rest.

A feature store, a run and an index have one. It tells by source, so that a source that is read again replaces what was
said of it before; an item that several sources name counts once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path

from distilvl.data.left_out import HELD, LeftOut
from distilvl.features.atomic import only_writer, storage_error, write_atomically

LEFT_OUT_NAME = "left-out.json"
_logger = logging.getLogger("distilvl")

Sources = dict[str, LeftOut]
"""What was left out of each source, by what the command called it."""


def source_name(data: str, splits: Sequence[str] = ()) -> str:
    """What a file calls `data` of which only `splits` were read."""
    return f"{data} ({', '.join(splits)})" if splits else data


def all_left_out(sources: Mapping[str, LeftOut]) -> LeftOut:
    """What was left out of any of `sources`, each item once."""
    return reduce(or_, sources.values(), LeftOut())


def read_left_out(folder: Path) -> Sources:
    """What the file in `folder` tells; nothing where there is none, and nothing but a warning of a damaged one."""
    path = folder / LEFT_OUT_NAME
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): LeftOut.from_dict(one) for name, one in saved["sources"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _logger.warning("%s is damaged (%s): what was left out before is not known", path, error)
        return {}


def write_left_out(folder: Path, sources: Mapping[str, LeftOut]) -> None:
    """Make the file say exactly `sources`; where nothing was left out there is none. Nothing new, nothing written.

    Raises:
        DistilvlError: the disk does not take it.
    """
    path = folder / LEFT_OUT_NAME
    told = {name: one for name, one in sorted(sources.items()) if one}
    if not told:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error
    elif told != read_left_out(folder):
        saved = {"sources": {name: one.as_dict(HELD) for name, one in told.items()}}
        write_atomically(path, (json.dumps(saved, indent=1) + "\n").encode("ascii"))


def note_left_out(folder: Path, source: str, left_out: LeftOut) -> None:
    """Make the file in `folder` say `left_out` of `source`, and of others what it said; several processes may do so.

    Raises:
        DistilvlError: the disk does not take it.
    """
    known = read_left_out(folder)
    if known.get(source, LeftOut()) == left_out:
        return
    with only_writer(folder):
        write_left_out(folder, {**read_left_out(folder), source: left_out})
