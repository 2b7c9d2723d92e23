from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.teachers.beit3 import Vocabulary


def test_numbers_are_the_pieces_shifted_by_one(vocabulary: Path):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    text = "a red dog on the beach"
    expected = [pieces.piece_to_id(piece) + 1 for piece in pieces.encode(text, out_type=str)]
    assert min(expected) >= 4
    assert Vocabulary(vocabulary, 50).numbers(text) == [0, *expected, 2]


def test_unknown_letters_and_no_text(vocabulary: Path):
    numbers = Vocabulary(vocabulary, 50).numbers("\u732b")
    assert numbers[0] == 0
    assert numbers[-2:] == [3, 2]
    assert Vocabulary(vocabulary, 50).numbers("") == [0, 2]


@given(st.text())
def test_every_text_is_a_row_of_the_model(vocabulary: Path, text: str):
    numbers = Vocabulary(vocabulary, 27).numbers(text)
    assert 2 <= len(numbers) <= 64
    assert numbers[0] == 0
    assert numbers[-1] == 2
    assert all(3 <= number < 27 for number in numbers[1:-1])


def test_a_long_text_is_cut(vocabulary: Path):
    short, long = "dog " * 5, "dog " * 100
    known = Vocabulary(vocabulary, 50)
    assert len(known.numbers(long)) == 64
    assert known.numbers(long)[:5] == known.numbers(short)[:5]


def test_a_batch_is_padded_to_its_longest(vocabulary: Path):
    known = Vocabulary(vocabulary, 50)
    texts = ["a dog", "", "a red dog on the beach"]
    tokens, is_padding = known.batch(texts)
    longest = len(known.numbers(texts[2]))
    assert tokens.shape == is_padding.shape == (3, longest)
    for row, padding, text in zip(tokens, is_padding, texts, strict=True):
        numbers = known.numbers(text)
        assert row.tolist() == numbers + [1] * (longest - len(numbers))
        assert padding.tolist() == [False] * len(numbers) + [True] * (longest - len(numbers))


def test_a_vocabulary_larger_than_the_model(vocabulary: Path):
    Vocabulary(vocabulary, 27)
    with pytest.raises(DistilvlError, match=r"26 pieces.* is not the vocabulary of a model of 26 tokens"):
        Vocabulary(vocabulary, 26)


def test_other_special_pieces(tmp_path: Path):
    (tmp_path / "lines.txt").write_text("some lines of text\nto learn from\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"), model_prefix=str(tmp_path / "t5"), vocab_size=20, pad_id=0, unk_id=2,
        bos_id=-1, eos_id=1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    with pytest.raises(DistilvlError, match="first <pad>, </s>, <unk>"):
        Vocabulary(tmp_path / "t5.model", 50)


def test_no_vocabulary(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"none\.spm does not exist"):
        Vocabulary(tmp_path / "none.spm", 50)
    (tmp_path / "no.spm").write_text("words")
    with pytest.raises(DistilvlError, match=r"no\.spm is not a sentencepiece model"):
        Vocabulary(tmp_path / "no.spm", 50)


def test_without_sentencepiece(vocabulary: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(DistilvlError, match=r"needs the package sentencepiece.*distilvl\[beit3\]"):
        Vocabulary(vocabulary, 50)
