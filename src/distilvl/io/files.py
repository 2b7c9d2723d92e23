"""Files and folders that are either there and whole, or not there: temporary name, sync, rename."""

import contextlib
import functools
import glob
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError, one_line

PARTIAL_PREFIX = ".partial-"
ABANDONED_S = 3600.0  # no writer needs this long for one file, and no two machines' clocks are this far apart
_RUN_AGAIN = "Free space or fix the folder's permissions, then run the same command again: what is finished is kept."
_ELSEWHERE = "Free space or choose another --out, and run again."
_BOOT_ID, _NUMBERING = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_OF_RUST = re.compile(r"(?:.*: )?([^:]+?) \(os error \d+\)", re.DOTALL)
_ID = re.compile(r"m([0-9a-f]{12})-p(\d+)(?!\d)")


@contextlib.contextmanager
def new_file(path: Path, remedy: str = _RUN_AGAIN) -> Iterator[Path]:
    """A temporary name beside `path`; what the block writes there is synced and renamed to `path` when it ends well.

    A killed process or a power cut never leaves a part of the file at `path`, and what was there before stays until
    then. Of several processes that do this at once, the last rename stays. `DistilvlError`, which ends with `remedy`,
    when the disk is full, read-only or failing; nothing is left behind.
    """
    with _partial(path, remedy) as partial:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)


def write_atomically(path: Path, data: bytes, remedy: str = _RUN_AGAIN) -> None:
    """Write `data` to `path` as a `new_file`."""
    with new_file(path, remedy) as partial:
        partial.write_bytes(data)


def create_atomically(path: Path, data: bytes) -> bool:
    """As `write_atomically`, but never over a file that is there: of several writers one gets True."""
    with _partial(path, _RUN_AGAIN) as partial:
        partial.write_bytes(data)
        _sync(partial)
        try:
            os.link(partial, path)  # unlike a rename, refused where the name is taken
        except FileExistsError:
            return False
        except OSError:  # a disk without hard links: a rename is the best there is
            if path.exists():
                return False
            partial.replace(path)
        _sync(path.parent)
        return True


@contextlib.contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, renamed to `out` when the block ends well and removed otherwise.

    At `out` may be an empty folder or, with `replace`, anything, which stays until the new folder is whole.
    `DistilvlError` where `out` is there and not to be replaced, or the disk does not take the files.
    """
    if not replace and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DistilvlError(f"{out} exists already.", "Remove it, or choose another folder.")
    staging, old = _temporary(out), _temporary(out)
    _remove_abandoned(out.parent, f"{PARTIAL_PREFIX}*-{glob.escape(out.name)}")
    try:
        staging.mkdir(parents=True)
        yield staging
        if out.exists():
            out.replace(old)
        staging.replace(out)
    except Exception as error:
        if not _is_of_disk(error):
            raise
        raise storage_error(out, error, _ELSEWHERE) from error
    finally:
        if old.exists() and not out.exists():
            old.replace(out)
        for left in (staging, old):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _partial(path: Path, remedy: str) -> Iterator[Path]:
    """A temporary name beside `path`; a file of that name is gone when the block ends, and killed writers' before."""
    partial = _temporary(path)
    _remove_abandoned(path.parent, f"{PARTIAL_PREFIX}*-{glob.escape(path.name)}")
    try:
        try:
            yield partial
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except Exception as error:
        if not _is_of_disk(error):
            raise
        raise storage_error(path, error, remedy) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f"{PARTIAL_PREFIX}{writer_id()}-{uuid.uuid4().hex[:8]}-{path.name}")


def _sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable; Windows has no such call for folders."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(path: Path, error: Exception, remedy: str = _RUN_AGAIN) -> DistilvlError:
    """The one line a user sees when the disk does not take the file or folder `path`."""
    of_rust = _OF_RUST.search(str(error))
    reason = of_rust[1] if of_rust else getattr(error, "strerror", None) or str(error)
    return DistilvlError(f"cannot write {path}: {reason}.", remedy)


def _is_of_disk(error: Exception) -> bool:
    """Whether it is the system's. Libraries in Rust (safetensors, tokenizers) raise it as errors of their own."""
    return isinstance(error, OSError) or _OF_RUST.search(str(error)) is not None


def load_array(path: Path, remedy: str) -> Any:
    """The array in a `.npy` file, mapped: a head that claims more than the file holds takes no memory.

    `DistilvlError`, which ends with `remedy`, for a file that cannot be read or is no such array.
    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", remedy) from error
    except Exception as error:  # the head is an expression of Python, whose parser raises many things
        raise DistilvlError(f"{path} is not a plain NumPy array: {one_line(error, 200)}.", remedy) from error
    if not isinstance(array, np.ndarray):
        raise DistilvlError(f"{path} is not one array.", remedy)
    return array


def mapped_array(shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path, remedy: str) -> npt.NDArray[Any]:
    """An array to fill, mapped from a file without a name in `folder`, which goes with the last process that has it."""
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a page that a full disk does not take would end the process later
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=shape))
    except OSError as error:
        problem = f"cannot write {size / 1e9:.2f} GB to {folder}: {error.strerror or error}."
        raise DistilvlError(problem, remedy) from error


def make_folder(folder: Path, remedy: str = _RUN_AGAIN) -> None:
    """Create `folder` where it is missing; `DistilvlError` when that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error, remedy) from error


def give_usual_modes(path: Path) -> None:
    """Give the file `path`, or all files in the folder `path`, the mode of a file that is simply opened for writing.

    What some libraries write (safetensors since 0.8) is its owner's alone whatever the umask says. A file made here
    tells the usual mode: asking for the umask would change it for a moment, for all threads. Some disks know no modes.
    """
    files = [found for found in path.rglob("*") if found.is_file()] if path.is_dir() else [path]
    probe = _temporary(path / "mode" if path.is_dir() else path)
    with contextlib.suppress(OSError):
        try:
            with probe.open("x"):
                usual = stat.S_IMODE(probe.stat().st_mode)
        finally:
            probe.unlink(missing_ok=True)
        for file in files:
            if stat.S_IMODE(file.stat().st_mode) != usual:
                file.chmod(usual)


def remove_partials(folder: Path) -> None:
    """Delete what killed writers left under temporary names, and nothing that another writer still needs."""
    _remove_abandoned(folder, f"{PARTIAL_PREFIX}*")


def _remove_abandoned(folder: Path, pattern: str) -> None:
    for leftover in folder.glob(pattern):
        if is_abandoned(leftover, leftover.name.removeprefix(PARTIAL_PREFIX)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


@functools.cache
def machine_id() -> str:
    """12 hex digits: this machine since it was started; where process numbers mean something else, another machine."""
    try:
        boot, numbering = _BOOT_ID.read_text(encoding="ascii"), str(_NUMBERING.readlink())
    except OSError:
        boot, numbering = "", ""
    return hashlib.sha256("\0".join((socket.gethostname(), boot, numbering)).encode()).hexdigest()[:12]


def writer_id() -> str:
    """This process, as part of a file name: `m<machine>-p<process id>`."""
    return f"m{machine_id()}-p{os.getpid()}"


def is_dead_here(owner: str) -> bool:
    """Whether `owner`, which begins with a `writer_id` or is nobody's, was a process of this machine that has ended.

    False when it cannot be known: another machine's process, or a system without a harmless way to ask.
    """
    match = _ID.match(owner)
    if match is None:
        return True
    if match[1] != machine_id() or os.name != "posix":
        return False
    try:
        os.kill(int(match[2]), 0)
    except (ProcessLookupError, PermissionError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False


def is_abandoned(path: Path, owner: str) -> bool:
    """Whether the writer whose `writer_id` `owner` begins with is gone: dead on this machine, or silent for an hour."""
    if is_dead_here(owner):
        return True
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:
        return False
