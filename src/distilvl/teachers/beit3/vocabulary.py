"""BEiT-3's tokens: a sentencepiece model whose numbers are shifted by one, as XLM-RoBERTa does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from distilvl.errors import DistilvlError

BOS, PAD, EOS, UNKNOWN = 0, 1, 2, 3
MAX_LENGTH = 64
"""Tokens of a text at most, the first and the last one included."""

# Sentencepiece counts <unk>, <s>, </s> as 0, 1, 2 and its first piece as 3; the model has <s>, <pad>, </s>, <unk> and
# its first piece at 4.
_SHIFT = 1
_OWN_SPECIAL = ["<unk>", "<s>", "</s>"]


class Vocabulary:
    """Texts to token numbers.

    Args:
        path: the sentencepiece model (`beit3.spm`).
        size: rows of the model's table of tokens.

    Raises:
        DistilvlError: the package sentencepiece is not installed, or `path` is not the vocabulary of such a model.
    """

    def __init__(self, path: Path, size: int) -> None:
        try:
            import sentencepiece
        except ModuleNotFoundError as error:
            raise DistilvlError(
                "BEiT-3 needs the package 'sentencepiece'.", 'Install it: pip install "distilvl[beit3]".'
            ) from error
        if not path.is_file():
            raise DistilvlError(f"BEiT-3's vocabulary {path} does not exist.", "Give the released beit3.spm.")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise DistilvlError(f"{path} is not a sentencepiece model.", "Give the released beit3.spm.") from error
        count = self._pieces.get_piece_size()
        special = [self._pieces.id_to_piece(k) for k in range(min(3, count))]
        if special != _OWN_SPECIAL or count + _SHIFT > size:
            raise DistilvlError(
                f"{path} ({count:,} pieces, first {', '.join(special)}) is not the vocabulary of a model of {size:,} "
                "tokens.",
                "Give the released beit3.spm.",
            )

    def numbers(self, text: str) -> list[int]:
        """Token numbers of one text between BOS and EOS, cut to `MAX_LENGTH`."""
        pieces: list[int] = self._pieces.encode(text)
        shifted = [UNKNOWN if piece == 0 else piece + _SHIFT for piece in pieces[: MAX_LENGTH - 2]]
        return [BOS, *shifted, EOS]

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers, shape (n, L), padded to the longest text, and where they are padding."""
        rows = [self.numbers(text) for text in texts]
        tokens = torch.full((len(rows), max(map(len, rows))), PAD)
        for k, row in enumerate(rows):
            tokens[k, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(tokens.shape[1]) >= lengths[:, None]
