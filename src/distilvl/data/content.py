"""Which captions are the same, and which pictures: what is compared wherever copies matter."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt


def words_key(caption: str) -> str:
    """Equal for captions that are equal word by word.

    White space, the case of letters and how accents are composed do not matter: many tokenizers drop them, and to the
    model the captions are then one and the same. Punctuation does.
    """
    return " ".join(unicodedata.normalize("NFC", caption).casefold().split())


def numbered(keys: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """A number for each key, equal for equal keys, from 0 in order of first appearance: (n,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
