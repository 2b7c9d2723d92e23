"""What an index passed over: of each folder that it covers, in its `left-out.json`; and folders that cannot be listed.

Names are absolute paths, so that a folder within another is told of once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from distilvl.data.image_files import UNREADABLE_FOLDER
from distilvl.data.left_out import LeftOut
from distilvl.data.left_out_file import Sources, read_left_out, write_left_out
from distilvl.errors import DistilvlError
from distilvl.search.filters import prefix

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}


def under(folder: Path, found: LeftOut) -> LeftOut:
    """The same with absolute names: those of `found` are as seen from `folder`."""
    names = {reason: [(folder / name).as_posix() for name in held] for reason, held in found.names.items()}
    return LeftOut(dict(found.counts), names)


def note_folder(index: Path, folder: str, found: LeftOut) -> None:
    """Make the index say `found` of `folder`, and no more of the folders in it; of others what it said.

    Raises:
        DistilvlError: the disk does not take it.
    """
    inside = prefix(folder)
    kept: Sources = {
        known: _outside(one, inside)
        for known, one in read_left_out(index).items()
        if not prefix(known).startswith(inside)
    }
    write_left_out(index, {**kept, folder: found})


def _outside(found: LeftOut, inside: str) -> LeftOut:
    """`found` without the items below a folder."""
    left = LeftOut()
    for reason, names in found.names.items():
        kept = [name for name in names if not name.startswith(inside)]
        if count := found.counts[reason] - (len(names) - len(kept)):
            left.counts[reason], left.names[reason] = count, kept
    return left


def nothing_to_index(folder: Path, left_out: LeftOut) -> DistilvlError:
    """The error of a folder of which nothing is in the index."""
    if not left_out:
        return DistilvlError(f"{folder} holds no photographs.", "Give a folder that does.")
    return DistilvlError(
        f"nothing in {folder} can be indexed; left out {'; '.join(left_out.lines())}.",
        "Convert these to JPEG or PNG, or see docs/data.md on what is read; --include-hidden reads hidden folders too.",
    )


class Unlisted:
    """Tells which files may still be there although the disk did not list them.

    Args:
        root: the indexed folder.
        scan: what was passed over when it was listed.
    """

    def __init__(self, root: Path, scan: LeftOut) -> None:
        self._root = PurePosixPath(root.as_posix())
        self._is_closed = {PurePosixPath(name): True for name in scan.names.get(UNREADABLE_FOLDER, [])}

    def of(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths`, all below the root, that lie in a folder which cannot be listed now or could not before."""
        return {path for path in paths if any(map(self._closed, self._above(PurePosixPath(path))))}

    def _above(self, path: PurePosixPath) -> Iterable[PurePosixPath]:
        return (folder for folder in path.parents if folder == self._root or self._root in folder.parents)

    def _closed(self, folder: PurePosixPath) -> bool:
        if folder not in self._is_closed:
            try:
                with os.scandir(folder):
                    self._is_closed[folder] = False
            except OSError as error:
                self._is_closed[folder] = error.errno not in _NOT_THERE
        return self._is_closed[folder]
