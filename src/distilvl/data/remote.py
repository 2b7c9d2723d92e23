"""Files behind addresses that fsspec knows (`s3://`, `gs://`, `https://`, ...): found and read, never written."""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, TypeAlias

from distilvl.errors import DistilvlError, one_line

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOGIN = re.compile(r"(?<=://)[^/\s'\"]*@")
_QUERY = re.compile(r"(://[^\s'\"?#]*)[?#][^\s'\")]*")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "last_modified", "updated", "blob_id", "created")
_ELSEWHERE = "Give keys to the storage library by its own means, such as environment variables (docs/data.md)."


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped] # which takes 40 ms

    found: tuple[Any, str] = url_to_fs(url)
    return found


class RemoteReadError(DistilvlError):
    """A file that its server did not give. That says nothing about the data, so `--skip-bad` leaves none out."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder behind an address, like `Path`; what its server does not give is a `RemoteReadError`."""

    url: str  # without user, password and query, so it may be shown and logged

    def __str__(self) -> str:
        return self.url

    @property
    def parts(self) -> tuple[str, ...]:
        """Kind of address, server or bucket, folders, name."""
        return PurePosixPath(self.url).parts

    @property
    def name(self) -> str:
        """What stands after the last slash."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self.url.rpartition("/")[0])

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """The file, for reading; of a server that gives parts of files."""
        with _reading(self.url):
            files, path = _file_system(self.url)
            file = files.open(path, mode)
            return _RemoteFile(self.url, file, file.seek(0, 2))  # type: ignore[return-value]

    def read_range(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on, in one request; fewer where the file ends."""
        with _reading(self.url):
            files, path = _file_system(self.url)
            data: bytes = files.cat_file(path, start=start, end=start + size)
            if len(data) > size:
                raise OSError("the server does not give parts of files")
            return data

    def version(self) -> tuple[int, str]:
        """Bytes, and the ETag or the time of the last change (empty where the server tells neither)."""
        with _reading(self.url):
            files, path = _file_system(self.url)
            about = files.info(path)
            if about.get("size") is None:
                raise OSError("the server does not say how long it is")
            return int(about["size"]), next((str(about[name]) for name in _VERSIONS if about.get(name)), "")


AnyPath: TypeAlias = Path | RemotePath


def is_remote(source: str) -> bool:
    """Whether `source` is an address, such as `s3://bucket/a.tar`; reads nothing."""
    return _ADDRESS.match(source) is not None


def refuse_login(source: str) -> None:
    """That no user or password stands in `source`: it would be kept in run folders; `DistilvlError` without it."""
    if _LOGIN.search(source):
        raise DistilvlError(f"the address {_shown(source)} has a user or a password in it.", _ELSEWHERE)


def local_only(source: str) -> DistilvlError:
    """The error for an address where only a path of this machine can be read."""
    problem = f"{_shown(source)} is remote, and only Parquet and WebDataset are read from there."
    return DistilvlError(problem, "Copy it to this machine, or use parquet:URL or webdataset:URL.")


def remote_path(url: str) -> RemotePath:
    """The path behind `url` in fsspec's form; asks no server. `DistilvlError` for no plain address of a known kind."""
    refuse_login(url)
    if "?" in url or "#" in url:
        raise DistilvlError(f"the address {_shown(url)} has a query after it.", _ELSEWHERE)
    if "::" in url:
        raise DistilvlError(f"{url} is a chain of addresses.", "Give a single one.")
    kind = url.partition(":")[0].lower()
    try:
        files, path = _file_system(url)
    except ImportError as error:
        package = _PACKAGES.get(kind)
        remedy = f"Install it: pip install {package}" if package else f"{_shown(one_line(error))}."
        raise DistilvlError(f"{kind}:// needs the package {package or 'of its storage'}.", remedy) from error
    except ValueError as error:
        raise DistilvlError(f"{url} cannot be read: {_shown(one_line(error))}.", "Check the address.") from error
    return RemotePath(files.unstrip_protocol(path))


def remote_files(place: str, suffix: str, below: Sequence[str]) -> list[RemotePath]:
    """The files that `place` names, sorted: one that ends in `suffix`, those of a pattern, or those of a folder.

    `*` and `[0-9]` in it stand for several names; within a folder, files of the names `below` with the suffix count.
    """
    if not glob.has_magic(place) and PurePosixPath(place).suffix.lower() == suffix:
        return [remote_path(place)]
    patterns = [place] if glob.has_magic(place) else [f"{place.rstrip('/')}/{name}{suffix}" for name in below]
    found: set[RemotePath] = set()
    for pattern in patterns:
        url = remote_path(pattern).url
        with _reading(url):
            files, path = _file_system(url)
            found.update(RemotePath(files.unstrip_protocol(name)) for name in files.glob(path))
    return sorted((path for path in found if not path.name.startswith(".")), key=str)


class _RemoteFile(io.RawIOBase):
    """A file of fsspec with one kind of error, and no bytes missing in silence."""

    def __init__(self, url: str, file: Any, size: int) -> None:
        self._url, self._file, self._size, self._place = url, file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = (0, self._place, self._size)[whence] + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        wanted = left if size < 0 else min(size, left)
        with _reading(self._url):
            # Always seek: whoever opens a file of memory:// gets the same one, and so the same place in it.
            self._file.seek(self._place)
            data: bytes = self._file.read(wanted)
            if len(data) < wanted:
                raise OSError(f"{len(data):,} of {wanted:,} bytes came")
        self._place += wanted
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """All that storage libraries raise, as the one error that names the file."""
    try:
        yield
    except DistilvlError:
        raise
    except FileNotFoundError as error:
        raise RemoteReadError(f"there is no {url}.", "Check the address.") from error
    except Exception as error:  # HTTP, S3 and Google clients have roots of their own
        # The server may have sent us on to an address with a signature, which is cut off.
        remedy = "Check keys and connection, then run the same command again."
        raise RemoteReadError(f"cannot read {url}: {_shown(one_line(error))}.", remedy) from error


def _shown(text: str) -> str:
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))
