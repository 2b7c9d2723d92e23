from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.students.processors import learn_tokenizer

CAPTIONS = ["A red circle, above a blue square!", "a small green star", "two pink hearts; a red one"]


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    """A resumed run builds its tokenizer anew: other numbers would scramble the trained word vectors."""
    code = (
        "from distilvl.students.processors import learn_tokenizer as l; "
        f"print(sorted(l({CAPTIONS!r}, 60, 32).get_vocab().items()))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert outputs == {str(sorted(learn_tokenizer(CAPTIONS, 60, 32).get_vocab().items())) + "\n"}


def test_frequent_words_stay_whole_and_others_fall_into_letters() -> None:
    tokenizer = learn_tokenizer(CAPTIONS, 60, 32)
    assert tokenizer.tokenize("a Red") == ["a", "red"]
    assert tokenizer.tokenize("rat") == ["r", "##a", "##t"]
    assert tokenizer.tokenize("zz") == ["[UNK]"]
    assert len(tokenizer) <= 60


@given(st.lists(st.sampled_from("abcdefgh "), min_size=1, max_size=30).map("".join))
def test_any_text_of_known_letters_has_no_unknown_token(text: str) -> None:
    tokenizer = learn_tokenizer(["a b c d e f g h abc dead"], 40, 64)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id


def test_too_small_a_vocabulary_says_how_many_it_takes() -> None:
    with pytest.raises(DistilvlError, match=r"student\.text\.vocabulary to"):
        learn_tokenizer(CAPTIONS, 10, 32)
