"""Text of the lists that people hand in: which encodings are read, and what is said of the others."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from distilvl.errors import DistilvlError

# UTF-32 is not read: its little-endian mark begins like that of UTF-16, and nobody writes lists in it.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_text(path: Path) -> str:
    """The text of a list: UTF-8, with or without a byte order mark, or UTF-16 with one.

    No other encoding is guessed: a wrong guess gives captions that look right until an accent comes.

    Raises:
        DistilvlError: the file cannot be read, or is in another encoding; names the line and the byte.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode_text(data, str(path))


def read_lines(path: Path) -> Iterator[str]:
    """The lines of `read_text`, each with its end, without the whole file in memory.

    Raises:
        DistilvlError: as `read_text`, when the line is reached.
    """
    try:
        with path.open("rb") as file:
            mark, encoding = _encoding(file.read(len(codecs.BOM_UTF8)))
            file.seek(len(mark))
            yield from io.TextIOWrapper(file, encoding)  # any line end becomes \n
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError:
        read_text(path)  # says where
        raise


def decode_text(data: bytes, where: str) -> str:
    """The text of a list whose bytes are `data`, as `read_text`; `where` is what the error calls it."""
    mark, encoding = _encoding(data)
    data = data[len(mark) :]
    try:
        # Reading a file as text turns all line ends into \n; readers of CSV and JSON lines rely on that.
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count("\n".encode(encoding), 0, error.start) + 1
        byte = f"byte {len(mark) + error.start} is 0x{data[error.start]:02x}"
        what = "UTF-8" if encoding == "utf-8" else "UTF-16"
        raise DistilvlError(
            f"{where}, line {line} is not {what} text ({byte}).",
            "Save the file as UTF-8, for example by 'iconv -f WINDOWS-1252 -t UTF-8 old > new'.",
        ) from error


def _encoding(start: bytes) -> tuple[bytes, str]:
    """The byte order mark that a file begins with, perhaps none, and what follows it is written in."""
    return next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", "utf-8"))


def _unreadable(path: Path, error: OSError) -> DistilvlError:
    return DistilvlError(f"cannot read {path}: {error.strerror}.", "Check the path.")
