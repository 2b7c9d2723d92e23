"""Static text towers: their tokenizer, and the same embeddings on every way through them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from distilvl.data.scenes import scenes_dataset
from distilvl.errors import DistilvlError
from distilvl.students import DualEncoder, build_student, load_student, save_student
from distilvl.students.heads import mean_of_rows
from distilvl.students.static import static_tokenizer, token_ids, unknown_rate
from distilvl.students.storage import route

RIDES = ["a man rides", "a rider", "the dog is riding", "she jumped", "jumping dogs jump", "he walks; she walked"]
RIDES += ["walking", "the dogs sleep", "a cat sleeping", "a hat", "no hats", "talking cats talk", "they talked"]
RIDING = static_tokenizer(RIDES, 200, 2)
TEXTS = ["", "a red dog", "  A  RED dog. ", "???", "\u200b", "東京 — naïve café 🐕", "zebra", "dog " * 400]


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return [str(tokenizer.id_to_token(token)) for token in token_ids(tokenizer, [text])[0]]


@pytest.fixture(scope="module")
def encoder() -> DualEncoder:
    torch.manual_seed(0)
    words = ["a red dog", "a red dog runs", "two blue dogs", "zebras"]
    overrides = ["text.kind=static", "text.rank=6", "text.pairs=2"]
    return DualEncoder(build_student("demo", 16, words, overrides=overrides))


def test_the_tokenizer_is_the_same_for_captions_in_any_order_and_in_every_process() -> None:
    expected = static_tokenizer(RIDES, 200, 2).to_str()
    shuffled = list(RIDES)
    random.Random(0).shuffle(shuffled)
    assert static_tokenizer(shuffled, 200, 2).to_str() == expected
    code = f"from distilvl.students.static import static_tokenizer as s; print(s({shuffled!r}, 200, 2).to_str())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == expected + "\n"


def test_words_are_whole_and_others_fall_into_stem_ending_and_letters() -> None:
    tokenizer = static_tokenizer(RIDES, 300)
    assert tokens(tokenizer, "A dog rides") == ["[TEXT]", "▁a", "▁dog", "▁rides"]
    assert tokens(tokenizer, "sleeps") == ["[TEXT]", "▁sleep", "s"]
    assert tokens(tokenizer, "catting") == ["[TEXT]", "▁cat", "t", "ing"]  # `ing` ends three of the known words
    assert tokens(tokenizer, "xq") == ["[TEXT]", "▁x", "q"]
    assert "ing" not in static_tokenizer(["jumping", "sleeping", "riding"], 300).get_vocab()  # whose stems are no words


def test_pairs_that_are_frequent_are_one_token_and_split_no_word() -> None:
    captions = ["the dog", "the dog", "the dogs", "red car", "red carpet"]
    assert tokens(static_tokenizer(captions, 200), "the dog") == ["[TEXT]", "▁the", "▁dog"]
    paired = static_tokenizer(captions, 200, 2)
    assert tokens(paired, "see the dog") == ["[TEXT]", "▁s", "e", "e", "▁the▁dog"]
    assert tokens(paired, "the dogs") == ["[TEXT]", "▁the", "▁dogs"]
    assert "▁red▁car" not in paired.get_vocab()  # seen once
    assert paired.get_vocab_size() == static_tokenizer(captions, 200).get_vocab_size() + 1


def test_punctuation_case_and_accents_do_not_matter() -> None:
    tokenizer = static_tokenizer(["a cafe by the sea", "a t-shirt"], 200)
    rows = token_ids(
        tokenizer, ["a cafe by the sea", "A Café, by the sea.", " a cafe...by the sea !", "a_cafe\nby the sea"]
    )
    assert all(row == rows[0] for row in rows)
    assert tokens(tokenizer, "T-shirt") == ["[TEXT]", "▁t", "▁shirt"]
    assert tokens(tokenizer, "[TEXT] [UNK] ▁") == ["[TEXT]", "▁t", "e", "x", "t", "▁u", "n", "k"]


@given(st.text(max_size=40))
def test_any_text_has_its_mark_and_a_space_before_it_changes_nothing(text: str) -> None:
    """A plain SentenceTransformer puts one there."""
    row, spaced = token_ids(RIDING, [text, f" {text}"])
    assert row == spaced
    assert row[0] == RIDING.token_to_id("[TEXT]")
    assert row.count(row[0]) == 1


def test_the_share_of_unknown_tokens() -> None:
    tokenizer = static_tokenizer(["a red dog", "two blue dogs"], 200)
    assert unknown_rate(tokenizer, ["a dog", "blue zebra!", ""]) == 0
    assert unknown_rate(tokenizer, ["собака", "東京"]) == 1  # a run of letters is one token
    assert unknown_rate(tokenizer, ["red red red", "собака"]) == 0.25
    assert unknown_rate(tokenizer, []) == 0


def test_a_vocabulary_has_room_for_letters_and_no_more_than_it_may() -> None:
    captions = scenes_dataset(train=30, val=0, test=0).captions
    assert static_tokenizer(captions, 120).get_vocab_size() == 120
    with pytest.raises(DistilvlError, match=r"a vocabulary of 50 cannot hold .* student\.text\.vocabulary to 92"):
        static_tokenizer(captions, 50)
    with pytest.raises(DistilvlError, match="and there are none"):
        static_tokenizer([], 500)


@pytest.mark.parametrize(("rank", "length"), [(15, 15), (16, 16), (17, 16), (128, 16)])
def test_a_row_is_no_longer_than_the_embedding(rank: int, length: int) -> None:
    student = build_student("demo", 16, ["a dog"], overrides=["text.kind=static", f"text.rank={rank}"])
    assert route(student, "text")[0].embedding.weight.shape[1] == length


def test_no_rank_is_the_dimension() -> None:
    student = build_student("demo", 16, ["a dog"], overrides=["text.kind=static", "text.rank=null"])
    assert route(student, "text")[0].embedding.weight.shape[1] == 16


def test_its_parts(encoder: DualEncoder) -> None:
    assert encoder.text_is_static
    assert repr(encoder) == "DualEncoder(image=vit, text=static, dim=16, device='cpu')"
    table, head = route(encoder.student, "text")[0].embedding.weight, encoder.head("text")
    assert (table.shape[1], head.in_features, head.out_features, head.bias) == (6, 6, 16, None)
    assert [len(layer) for layer in encoder.tower_layers()[1]] == [1]
    assert len(encoder.heads()) == 3
    before = encoder.tower_fingerprint("text")
    with torch.no_grad():
        head.weight.mul_(2)
        assert encoder.tower_fingerprint("text") == before
        table[1].add_(1)
        assert encoder.tower_fingerprint("text") != before
        table[1].sub_(1)
        head.weight.div_(2)


def test_padded_ids_give_what_encode_gives_and_no_text_is_without_direction(
    encoder: DualEncoder, tmp_path: Path
) -> None:
    save_student(encoder.student, tmp_path / "student")
    plain = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    expected = plain.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(plain.encode(""), expected[0], atol=1e-6)
    for other in (plain.encode_query(TEXTS), load_student(tmp_path / "student", device="cpu").encode(TEXTS)):
        np.testing.assert_allclose(other, expected, atol=1e-6)
    ids, mask = encoder.pad(encoder.tokenize(TEXTS))
    assert ids.shape[1] == 256  # where the longest was cut
    with torch.no_grad():
        np.testing.assert_allclose(encoder.encode_texts(ids, mask), expected, atol=1e-6)
        np.testing.assert_allclose(encoder.encode_texts(encoder.pool_texts(ids, mask)), expected, atol=1e-6)
        np.testing.assert_allclose(encoder.encode_texts(ids[-1:]), expected[-1:], atol=1e-6)
    picture = Image.new("RGB", (40, 30), "red")
    assert np.array_equal(plain.encode([picture]), plain.encode([picture], prompt=""))


def test_the_mean_of_the_rows_by_hand() -> None:
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], dtype=torch.float64, requires_grad=True)
    ids, mask = torch.tensor([[0, 2, 1], [1, 0, 0], [2, 2, 2]]), torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert mean_of_rows(table, ids, mask).tolist() == [[3, 5.5], [3, 4], [0, 0]]
    assert mean_of_rows(table, ids[:1], None).tolist() == [[3, 5]]
    torch.autograd.gradcheck(lambda rows: mean_of_rows(rows, ids, mask), table)
