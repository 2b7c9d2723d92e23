from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tests.students.small_vocabularies import CAPTIONS, KINDS, WORDS, tower
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distilvl.errors import DistilvlError
from distilvl.students.pieces import trim_tokenizer

WORD = (
    st.sampled_from(WORDS)
    | st.text("abdefgiklmnoprstu", min_size=1, max_size=9)
    | st.sampled_from(["é", "猫", "🐋", "!?"])
)
TEXT = st.lists(WORD, max_size=8).map(" ".join) | st.text(max_size=12)
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def trimmed(kind: str) -> tuple[Any, list[int]]:
    return trim_tokenizer(tower(kind).tokenizer, CAPTIONS)


def fast(model: Any, **special: str) -> Any:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@every_kind
@given(text=TEXT)
def test_texts_of_kept_pieces_are_cut_as_before_and_others_into_kept_pieces(kind: str, text: str) -> None:
    whole, (smaller, order) = tower(kind).tokenizer, trimmed(kind)
    before, after = whole(text)["input_ids"], smaller(text)["input_ids"]
    if {*before} <= {*order}:
        assert [order[number] for number in after] == before
    # Nothing that could be read becomes unknown.
    assert after.count(smaller.unk_token_id) == before.count(whole.unk_token_id)
    assert smaller.decode(after) == whole.decode(before)


@every_kind
def test_captions_are_cut_as_before_by_far_fewer_entries(kind: str) -> None:
    whole, (smaller, order) = tower(kind).tokenizer, trimmed(kind)
    before, after = whole(CAPTIONS)["input_ids"], smaller(CAPTIONS)["input_ids"]
    assert [[order[number] for number in row] for row in after] == before
    assert len(smaller) == len(order) < len(whole) - 200
    assert smaller.get_vocab() == {whole.convert_ids_to_tokens(old): new for new, old in enumerate(order)}


@every_kind
def test_special_tokens_and_settings_stay(kind: str) -> None:
    whole, (smaller, order) = tower(kind).tokenizer, trimmed(kind)
    assert smaller.special_tokens_map == whole.special_tokens_map
    assert [order[number] for number in smaller.all_special_ids] == whole.all_special_ids
    assert {order[k]: str(v) for k, v in smaller.added_tokens_decoder.items()} == {
        k: str(v) for k, v in whole.added_tokens_decoder.items()
    }
    for setting in ("model_max_length", "padding_side", "truncation_side", "model_input_names"):
        assert getattr(smaller, setting) == getattr(whole, setting)
    pair = whole(WORDS[0], CAPTIONS[0])["input_ids"], smaller(WORDS[0], CAPTIONS[0])["input_ids"]
    if {*pair[0]} <= {*order}:
        assert [order[number] for number in pair[1]] == pair[0]


@every_kind
def test_trimming_again_changes_nothing(kind: str) -> None:
    smaller, order = trimmed(kind)
    again, places = trim_tokenizer(smaller, CAPTIONS)
    assert places == list(range(len(order)))
    assert again.get_vocab() == smaller.get_vocab()


def test_the_number_of_padding_stays() -> None:
    """Even if what stood before it goes: the positions of RoBERTa's kind are counted from it."""
    pieces = ["never", "neither", "[PAD]", "[UNK]", "a", "dog", "##g", "##o", "d", "g", "o", "##a", "##d"]
    pieces += [letter for letter in "nevrithsn" if letter not in pieces]
    pieces += [f"##{letter}" for letter in "nevrith"]
    vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys(pieces))}
    whole = fast(models.WordPiece(vocabulary, unk_token="[UNK]"), unk_token="[UNK]", pad_token="[PAD]")
    smaller, order = trim_tokenizer(whole, ["a dog"])
    assert smaller.pad_token_id == whole.pad_token_id == 2
    assert smaller.convert_ids_to_tokens(smaller("a dog never")["input_ids"])[:2] == ["a", "dog"]
    assert 0 not in order
    assert 1 not in order


def test_what_has_no_letters_of_its_own_is_kept() -> None:
    """Otherwise a word of it, which could be read before, would become unknown."""
    vocabulary = {piece: k for k, piece in enumerate(["[PAD]", "[UNK]", "a", "##a", "b", "##b", "##ax", "bab"])}
    whole = fast(models.WordPiece(vocabulary, unk_token="[UNK]"), unk_token="[UNK]", pad_token="[PAD]")
    smaller, _ = trim_tokenizer(whole, ["a b"])
    assert "bab" not in smaller.get_vocab()
    assert smaller.tokenize("bax") == ["b", "##ax"]


def test_what_an_unknown_letter_costs_stays() -> None:
    """It hangs on the lowest score of all pieces, so that a piece which no caption uses decides what is unknown."""
    scores = {"<unk>": 0.0, "a": -1.0, "b": -1.0, "ab": -1.5, "x?b": -12.0, "low": -30.0}
    pieces = [*scores.items(), *((letter, -2.0) for letter in "?low")]
    whole = fast(models.Unigram(pieces, unk_id=0), unk_token="<unk>", pad_token="<unk>")
    smaller, order = trim_tokenizer(whole, ["ab", "x?b"])
    assert "low" in smaller.get_vocab()
    for text in ("ab", "x?b", "zzab", "x", "axb"):
        assert [order[number] for number in smaller(text)["input_ids"]] == whole(text)["input_ids"]


def test_processors_in_a_sequence_are_renumbered() -> None:
    whole = tower("RoBERTa").tokenizer
    data = json.loads(whole.backend_tokenizer.to_str())
    inner = data["post_processor"]
    data["post_processor"] = {"type": "Sequence", "processors": [inner]}
    special = {name: token for name, token in whole.special_tokens_map.items() if isinstance(token, str)}
    sequence = hf.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)), **special)
    smaller, order = trim_tokenizer(sequence, CAPTIONS)
    assert isinstance(smaller.backend_tokenizer.post_processor, processors.Sequence)
    assert [order[number] for number in smaller(CAPTIONS[0])["input_ids"]] == whole(CAPTIONS[0])["input_ids"]


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (lambda: hf.CanineTokenizer(), "CanineTokenizer cannot be trimmed: it is none of the tokenizers library"),
        (
            lambda: fast(models.WordLevel({"a": 0, "u": 1}, unk_token="u"), pad_token="u"),
            "trimmed: it is WordLevel, and",
        ),
    ],
)
def test_other_tokenizers_are_refused_in_one_line(tokenizer: Any, reason: str) -> None:
    with pytest.raises(DistilvlError, match=rf"{reason}.* Leave student\.text\.vocabulary out") as error:
        trim_tokenizer(tokenizer(), ["a"])
    assert "\n" not in str(error.value)


def test_no_captions_are_refused() -> None:
    with pytest.raises(DistilvlError, match="trimmed to what captions use, and there are no captions"):
        trim_tokenizer(tower("BERT").tokenizer, [])


def test_a_tokenizer_that_does_not_come_back_the_same_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tower("BERT").tokenizer
    other = tower("RoBERTa").tokenizer
    monkeypatch.setattr(type(whole), "from_pretrained", lambda *_: other)
    with pytest.raises(DistilvlError, match="with fewer entries it gives other tokens"):
        trim_tokenizer(whole, CAPTIONS)
