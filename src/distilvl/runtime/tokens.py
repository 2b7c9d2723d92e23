"""From texts to token ids, with the tokenizers library alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from distilvl.errors import DistilvlError

Ids = npt.NDArray[np.int64]


class TextTokenizer:
    """Token ids as the student's own tokenizer gives them.

    Args:
        path: a `tokenizer.json`.
        max_length: tokens of a text, special ones included; longer texts are cut.
        pad_id: what short rows are filled with.

    Raises:
        DistilvlError: the file is not a tokenizer's.
    """

    def __init__(self, path: Path, max_length: int, pad_id: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise DistilvlError(f"{path} is not a tokenizer: {error}.", "Export the student again.") from error
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        self._pad_id = pad_id

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special tokens included.

        Raises:
            DistilvlError: one with half a surrogate pair.
        """
        for k, text in enumerate(texts):
            if not _is_unicode(text):
                raise DistilvlError(f"text {k} is not valid Unicode.", "Remove the lone surrogates.")
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
        """`input_ids` and `attention_mask`, both (n, longest) int64."""
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for k, row in enumerate(rows):
            ids[k, : len(row)] = row
            mask[k, : len(row)] = 1
        return ids, mask


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
