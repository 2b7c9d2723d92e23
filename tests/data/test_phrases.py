"""Sentences of our own: what they say, that they are the same everywhere, and the English of the grammar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from distilvl.data.phrases import COUNT, _entries, _participle, _third_person, phrases, plural, vocabulary, with_article

_SLOT = re.compile(r"\{(?:(a|s|ing|es) )?(\w+)\}")


@pytest.fixture(scope="module")
def sentences() -> tuple[str, ...]:
    return phrases()


def test_they_are_distinct_plain_sentences(sentences: tuple[str, ...]) -> None:
    assert len(set(sentences)) == len(sentences) == COUNT
    for sentence in sentences:
        assert re.fullmatch(r"[a-z][a-z'-]*(?: [a-z][a-z'-]*)*", sentence), sentence


def test_each_word_of_the_list_is_in_many(sentences: tuple[str, ...]) -> None:
    words = Counter(word for sentence in sentences for word in set(sentence.split()))
    for entry in vocabulary():
        for word in entry.split():
            forms = {word, plural(word), _participle(word), _third_person(word)}
            assert sum(words[form] for form in forms) >= 5, entry


def test_they_are_the_same_in_every_process_and_begin_alike_whatever_the_count(sentences: tuple[str, ...]) -> None:
    code = "from distilvl.data.phrases import phrases; print(*phrases(30), sep=chr(10))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert tuple(done.stdout.splitlines()) == sentences[:30] == phrases(30)


def test_another_seed_gives_others() -> None:
    assert not set(phrases(100, seed=1)) & set(phrases(100))


def test_all_entries_are_used_and_name_what_is_there() -> None:
    entries, used = _entries(), {"sentences"}
    for name, some in entries.items():
        assert some, name
        for entry in some:
            named = {slot[2] for slot in _SLOT.finditer(entry)}
            assert named <= set(entries), entry
            assert not re.search(r"[^a-z '-]|^ | $", _SLOT.sub("", entry).strip()), (name, entry)
            used |= named
    assert used == set(entries)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "dogs"), ("fireman", "firemen"), ("woman", "women"), ("german shepherd", "german shepherds"),
        ("slice of cake", "slices of cake"), ("sheep", "sheep"), ("bus", "buses"), ("bench", "benches"),
        ("berry", "berries"), ("toy", "toys"), ("potato", "potatoes"), ("piano", "pianos"), ("foot", "feet"),
        ("street child", "street children"), ("leaf", "leaves"),
    ],
)  # fmt: skip
def test_plurals(noun: str, expected: str) -> None:
    assert plural(noun) == expected


@pytest.mark.parametrize(
    ("verb", "participle", "third"),
    [
        ("walk", "walking", "walks"), ("run", "running", "runs"), ("lie", "lying", "lies"), ("ride", "riding", "rides"),
        ("be", "being", "is"), ("play", "playing", "plays"), ("fly", "flying", "flies"), ("go", "going", "goes"),
        ("throw", "throwing", "throws"), ("ski", "skiing", "skis"), ("catch", "catching", "catches"),
        ("fix", "fixing", "fixes"), ("have", "having", "has"), ("hang", "hanging", "hangs"),
    ],
)  # fmt: skip
def test_forms_of_verbs(verb: str, participle: str, third: str) -> None:
    assert (_participle(verb), _third_person(verb)) == (participle, third)


def test_articles() -> None:
    nouns = ("dog", "owl", "uniform", "old man", "one legged stool", "umbrella", "hour")
    assert [with_article(noun).split()[0] for noun in nouns] == ["a", "an", "a", "an", "a", "an", "an"]
