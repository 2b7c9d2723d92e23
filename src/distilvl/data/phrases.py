"""Texts for photographs that come without any: sentences of everyday English, from a word list and a grammar.

A teacher's text features say what its words mean, whoever wrote the texts. A text tower needs each word in many of
them, beside different others; whether they are true of any photograph does not matter. The words and the grammar are
`phrases.yaml`, which explains itself, and are a person's general English, of no dataset.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import count as numbers

COUNT = 20_000
"""Sentences, unless told otherwise: each word is in dozens of them."""

_SLOT = re.compile(r"\{(?:(a|s|ing|es) )?(\w+)\}")
_START = "sentences"  # the name where each sentence begins
_PLURALS = {
    **{
        "man": "men",
        "woman": "women",
        "child": "children",
        "person": "people",
        "mouse": "mice",
        "goose": "geese",
        "foot": "feet",
        "tooth": "teeth",
    },
    **dict.fromkeys(("bison", "deer", "fish", "moose", "reindeer", "salmon", "sheep", "shrimp", "squid", "trout"), ""),
    **{"calf": "calves", "knife": "knives", "leaf": "leaves", "scarf": "scarves", "shelf": "shelves", "wolf": "wolves"},
    **{f"{word}o": f"{word}oes" for word in ("mang", "mosquit", "potat", "tomat", "volcan")},
}
_VOWELS, _NO_VOWELS = ("a", "e", "i", "o", "u", "hour"), ("one", "uni", "used")  # as they are spoken


def phrases(count: int = COUNT, seed: int = 0) -> tuple[str, ...]:
    """So many different sentences, the same on all machines and with all versions of Python.

    Of each list of words all are used before one returns, in an order that `seed` sets.
    """
    grammar, found = _Grammar(_entries(), seed), dict[str, None]()
    while len(found) < count:
        found[grammar.expand(_START)] = None
    return tuple(found)


def vocabulary() -> tuple[str, ...]:
    """All words and fixed expressions of the list, such as `dog` and `fire truck`, in its order."""
    return tuple(dict.fromkeys(entry for some in _entries().values() for entry in some if "{" not in entry))


@cache
def _entries() -> dict[str, tuple[str, ...]]:
    import yaml

    text = files("distilvl.data").joinpath("phrases.yaml").read_text(encoding="utf-8")
    return {name: tuple(_repeated(entries)) for name, entries in yaml.safe_load(text).items()}


def _repeated(entries: str) -> Iterator[str]:
    for entry in re.split(r",\s*", entries):
        text, _, weight = entry.partition("*")
        yield from [text] * int(weight or 1)


class _Grammar:
    """Expands names to texts. Each name has its entries as a deck of cards, shuffled again when it is used up."""

    def __init__(self, entries: dict[str, tuple[str, ...]], seed: int) -> None:
        self._entries, self._seed, self._rounds = entries, seed, numbers()
        self._decks: dict[str, list[str]] = {name: [] for name in entries}

    def expand(self, name: str, form: str = "") -> str:
        """An entry of `name`, with what its braces stand for; the form is an article, a plural or a verb's."""
        entry = self._draw(name)
        if form in ("ing", "es"):
            verb, space, rest = entry.partition(" ")
            entry = (_participle(verb) if form == "ing" else _third_person(verb)) + space + rest
        elif form == "s":
            entry = plural(entry)
        text = _SLOT.sub(lambda slot: self.expand(slot[2], slot[1] or ""), entry)
        return with_article(text) if form == "a" else text

    def _draw(self, name: str) -> str:
        deck = self._decks[name]
        if not deck:
            start = f"{self._seed} {next(self._rounds)} "
            # By hashes and not by `random`, whose shuffles another version may do in another way: stored features
            # are looked up by their text.
            cards = enumerate(self._entries[name])
            deck += [entry for _, entry in sorted(cards, key=lambda card: _digest(f"{start}{card[0]}"))]
        return deck.pop()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def plural(noun: str) -> str:
    """`dogs`, `women`, `slices of cake`."""
    head, of, rest = noun.partition(" of ")
    before, space, word = head.rpartition(" ")
    return before + space + _plural_word(word) + of + rest


def _plural_word(word: str) -> str:
    for ending, replaced in _PLURALS.items():
        if word == ending or (ending in ("man", "woman") and word.endswith(ending)):
            return word.removesuffix(ending) + (replaced or ending)
    return _with_s(word)


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if re.search("[^aeiou]y$", word) else f"{word}s"


def with_article(text: str) -> str:
    """`a dog`, `an owl`, `a uniform`."""
    vowel = text.startswith(_VOWELS) and not text.startswith(_NO_VOWELS)
    return f"{'an' if vowel else 'a'} {text}"


def _third_person(verb: str) -> str:
    return {"have": "has", "do": "does", "go": "goes", "be": "is"}.get(verb) or _with_s(verb)


def _participle(verb: str) -> str:
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e") and not verb.endswith(("be", "ee")):
        return f"{verb[:-1]}ing"
    doubled = re.fullmatch("[^aeiou]*[aeiou][^aeiouwxy]", verb)  # one short syllable: run, sit, hug
    return f"{verb}{verb[-1] if doubled else ''}ing"
