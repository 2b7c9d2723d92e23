from __future__ import annotations

import hashlib

import pytest

from distilvl.io.hashes import image_key, pack_keys, text_key


def test_keys_are_the_first_half_of_sha256():
    assert image_key(b"abc") == hashlib.sha256(b"abc").digest()[:16]
    assert text_key("Käse") == hashlib.sha256("Käse".encode()).digest()[:16]


def test_every_byte_of_a_caption_counts():
    assert len({text_key(text) for text in ("a dog", "a dog ", "A dog", "a  dog")}) == 4


def test_pack_keys():
    keys = [image_key(bytes([k])) for k in range(3)]
    assert [bytes(key) for key in pack_keys(keys).view("V16").tolist()] == keys
    assert len(pack_keys([])) == 0
    with pytest.raises(ValueError, match="16 bytes"):
        pack_keys([b"short"])
