"""Static text towers: a table with a row for each token, and the mean of a text's rows; no context and no order.

The tokens are words, and pieces of words for those that the captions did not have. A tower is sentence-transformers'
`StaticEmbedding`, the table (V, r), and its head a linear map (r, D) without bias: the mark before a text, which
every text has, is the constant term.
"""

import string
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
from tokenizers import Regex, Tokenizer, models, normalizers
from torch import nn

from distilvl.config import StaticTextConfig
from distilvl.students.processors import fill_vocabulary, require_captions

UNKNOWN = "[UNK]"
_TEXT = "[TEXT]"  # begins each text; neither a capital letter nor a bracket is left of what people write
_START = "\u2581"  # of a word
# What people may type although no caption has it; punctuation is no part of a text here.
_BASIC = set(string.ascii_lowercase + string.digits + "$+<=>^`|~")
# Without patterns that match nothing, such as `$`: in browsers that finds the middle of an emoji, too.
_NORMALIZER = normalizers.Sequence(
    [
        normalizers.BertNormalizer(lowercase=True),  # without accents and control characters, too
        normalizers.Replace(Regex(rf"[\p{{P}} {_START}]+"), " "),
        normalizers.Prepend(f"{_TEXT} "),
        normalizers.Strip(left=False, right=True),
        normalizers.Replace("  ", " "),
        normalizers.Replace(" ", _START),
    ]
)
_SHORTEST_STEM, _FEWEST_WORDS = 3, 3  # letters; words that share a piece
_ENDINGS_OF_STEMS = 20  # the most shared ones: "ing", "ed", "er"; a stem goes with several of them
_PIECES = 10  # of so many entries one is a piece, at most
# The fewest entries win, of equally few the longest; one that does not begin a word costs more, lest "the dogs" become
# "the dog" and "s" where that pair is an entry.
_WORD, _PIECE, _LENGTH, _RANK, _LONGEST = -1.0, -1.5, 1e-4, 1e-10, 40


def static_tokenizer(captions: Collection[str], vocabulary: int, pairs: int = 0) -> Tokenizer:
    """A Unigram tokenizer of lowercased words without accents or punctuation, and of pieces for unknown words.

    Its entries are all letters of `captions` and ASCII's, the most frequent words, endings and stems that many words
    share, and, beside these, word pairs. The same captions in any order give the same entries with the same numbers.
    Letters that it does not have become `[UNK]`, one for each run of them. Every text begins with a mark of its own.

    Args:
        captions: what it is learnt from.
        vocabulary: how many entries there are at most, without the pairs.
        pairs: how often two words have to stand side by side to become an entry together; 0: never.

    Raises:
        DistilvlError: no captions, or more letters than `vocabulary` has room for.
    """
    require_captions(captions)
    words: Counter[str] = Counter()
    adjacent: Counter[str] = Counter()
    for caption in captions:
        found = _NORMALIZER.normalize_str(caption).split(_START)[1:]
        words.update(found)
        if pairs:
            adjacent.update(f"{_START}{first}{_START}{second}" for first, second in pairwise(found))
    letters = sorted({letter for word in words for letter in word} | _BASIC)
    words = Counter({word: count for word, count in words.items() if len(word) <= _LONGEST})
    base = [UNKNOWN, _TEXT, *letters, *(_START + letter for letter in letters)]
    most = max(0, vocabulary - len(base)) // _PIECES
    entries = [*base, *_pieces(words, most)]
    whole = Counter({_START + word: count for word, count in words.items()})
    entries = fill_vocabulary(entries, whole, vocabulary, len(letters))
    known = set(entries)
    both = (pair for pair, count in adjacent.items() if count >= pairs and _words_of(pair) <= known)
    entries += sorted(both, key=lambda pair: (-adjacent[pair], pair))
    scores = [_score(entry, rank) for rank, entry in enumerate(entries)]
    scores[0] = min(scores)  # libraries count the unknown entry's from the lowest one
    tokenizer = Tokenizer(models.Unigram(list(zip(entries, scores, strict=True)), unk_id=0, byte_fallback=False))
    tokenizer.normalizer = _NORMALIZER
    return tokenizer


def _words_of(pair: str) -> set[str]:
    return {_START + word for word in pair.split(_START)[1:]}


def _pieces(words: Collection[str], most: int) -> list[str]:
    """At most so many endings ("ing") and stems that are no words ("rid"), those that the most words share first."""
    cuts = [(word, k) for word in words for k in range(_SHORTEST_STEM, len(word) - 1)]  # single letters are known
    endings = Counter(word[k:] for word, k in cuts if word[:k] in words)
    common = sorted(endings, key=lambda ending: (-endings[ending], ending))[:_ENDINGS_OF_STEMS]
    stems = Counter(_START + word[:k] for word, k in cuts if word[:k] not in words and word[k:] in common)
    shared = {piece: count for piece, count in (endings + stems).items() if count >= _FEWEST_WORDS}
    return sorted(shared, key=lambda piece: (-shared[piece], piece))[:most]


def _score(entry: str, rank: int) -> float:
    length = min(len(entry), _LONGEST)
    return (_WORD if entry.startswith(_START) else _PIECE) + _LENGTH * length**2 - _RANK * rank


def unknown_rate(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """The share of `[UNK]` among the tokens of `texts`, the marks before them not counted; 0 to 1."""
    unknown, mark = tokenizer.token_to_id(UNKNOWN), tokenizer.token_to_id(_TEXT)
    counts = Counter(token for row in token_ids(tokenizer, texts) for token in row if token != mark)
    return 0.0 if unknown is None else counts[unknown] / max(1, counts.total())


def token_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Ids of each text. Of an empty one they are a space's, since the library normalizes no text without a letter."""
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [encoding.ids or tokenizer.encode(" ", add_special_tokens=False).ids for encoding in encodings]


# What a plain SentenceTransformer puts before each text, to the same end.
PROMPTS = {"text": " ", "query": " ", "document": " "}


def static_route(config: StaticTextConfig, dim: int, captions: Collection[str], gain: float) -> list[Any]:
    """A new table, random, of what is learnt from `captions`, and its head, begun with Xavier's spread times `gain`.

    `DistilvlError` as `static_tokenizer`.
    """
    rank = config.row_length(dim)
    tokenizer = static_tokenizer(captions, config.vocabulary, config.pairs)
    tokenizer.enable_truncation(config.max_length)
    head = Dense(rank, dim, bias=False, activation_function=None)
    nn.init.xavier_normal_(head.linear.weight, gain=gain)
    return [StaticEmbedding(tokenizer, embedding_dim=rank), head]


@dataclass(frozen=True)
class Parts:
    """What the rows of a static table are made of, when they are solved and not trained.

    A word's row is its own. A pair's row is the rows of its two words and a difference, so that one which is rare in
    the captions stays near what its words say.
    """

    of_entries: Any  # (V, V) sparse: row k counts the parts of entry k
    is_pair: npt.NDArray[np.bool_]  # (V,) which parts are the differences of pairs

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Parts":
        """Those of the entries of a `static_tokenizer`."""
        entries = tokenizer.get_vocab()
        ones, is_pair = [(k, k) for k in entries.values()], np.zeros(len(entries), dtype=bool)
        for entry, k in entries.items():
            words = entry.split(_START)[1:]
            if len(words) == 2:
                is_pair[k] = True
                ones += [(k, entries[_START + word]) for word in words]
        rows, columns = np.array(ones).T
        return cls(scipy.sparse.csr_matrix((np.ones(len(ones), np.float32), (rows, columns))), is_pair)

    def counts(self, tokens: Sequence[Sequence[int]]) -> Any:
        """(n, V) sparse float32: the parts in each text, over the root of how many words and pieces there are."""
        lengths = [len(row) for row in tokens]
        flat = np.fromiter((token for row in tokens for token in row), dtype=np.int64, count=sum(lengths))
        rows = np.repeat(np.arange(len(tokens)), lengths)
        shape = (len(tokens), len(self.is_pair))
        found = scipy.sparse.csr_matrix((np.ones(len(flat), np.float32), (rows, flat)), shape=shape) @ self.of_entries
        words = np.asarray(found[:, ~self.is_pair].sum(axis=1)).ravel()
        return scipy.sparse.diags_array(1 / np.sqrt(np.maximum(words, 1)).astype(np.float32)) @ found

    def table(self, parts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What each part adds, (V, r), as the rows of the entries, (V, r)."""
        return np.asarray(self.of_entries @ parts)
