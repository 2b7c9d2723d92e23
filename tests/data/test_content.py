from __future__ import annotations

import pytest

from distilvl.io.hashes import numbered, words_key


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a dog runs", "  a dog\truns\n", True),
        ("A Dog", "a dog", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("STRASSE", "straße", True),
        ("a dog", "a dog .", False),
        ("a dog", "dog a", False),
        ("adog", "a dog", False),
        ("cafe", "caf\u00e9", False),
    ],
)
def test_captions_are_compared_word_by_word(one: str, other: str, equal: bool) -> None:
    assert (words_key(one) == words_key(other)) is equal


def test_keys_are_numbered_in_order_of_appearance() -> None:
    assert numbered([b"x", b"y", b"x", b"z", b"y"]).tolist() == [0, 1, 0, 2, 1]
    assert numbered([]).tolist() == []
