"""Content hashes: an item is known by what it is, never by its position or file name; and when two are the same."""

import hashlib
import unicodedata
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.bytes_]
KEY_BYTES = 16  # length of a key; among 10^9 items two equal keys have a chance of about 10^-21


def image_key(data: bytes) -> bytes:
    """Key of an image: the first 16 bytes of the SHA-256 of its encoded bytes."""
    return hashlib.sha256(data).digest()[:KEY_BYTES]


def text_key(caption: str) -> bytes:
    """Key of a caption: the first 16 bytes of the SHA-256 of its UTF-8 text, exactly as written."""
    return hashlib.sha256(caption.encode("utf-8")).digest()[:KEY_BYTES]


def pack_keys(keys: Sequence[bytes] | Keys) -> Keys:
    """Keys of 16 bytes as an array of shape (n,), dtype `S16`, which can be sorted; such an array stays as it is."""
    if isinstance(keys, np.ndarray):
        return keys
    if any(len(key) != KEY_BYTES for key in keys):
        raise ValueError(f"keys are {KEY_BYTES} bytes long")
    return np.frombuffer(b"".join(keys), dtype=f"S{KEY_BYTES}")


def unpack_keys(packed: Keys) -> list[bytes]:
    """Keys of full length from what `pack_keys` made; NumPy's own conversion would drop zero bytes at the end."""
    return [bytes(key) for key in packed.view(f"V{KEY_BYTES}").tolist()]


def words_key(caption: str) -> str:
    """Equal for captions that are equal word by word: without white space, case, and the composition of accents."""
    return " ".join(unicodedata.normalize("NFC", caption).casefold().split())


def numbered(keys: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """A number for each key, equal for equal keys, from 0 in order of first appearance: (n,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def file_hash(*paths: Path) -> str:
    """SHA-256 of what a file, or several in a row, hold, in hexadecimal; `OSError` where one cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
