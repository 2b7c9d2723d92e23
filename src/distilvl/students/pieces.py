"""The pieces of a tokenizer that some texts use, and what every text may need; the tokenizer of these alone.

Texts made of kept pieces are cut into the same pieces, other texts into smaller kept ones:

- WordPiece takes the longest entry that fits: among fewer it is the same one, if that is kept.
- BPE applies the merge of the lowest rank: those that build a kept piece are kept, with every piece on the way.
- Unigram takes the pieces of the largest sum of scores: among fewer, the same ones. What an unknown character costs
  hangs on the lowest score of all, so that entry is kept.

Single characters, or bytes, are kept, and what holds a character without an entry: whatever could be cut still can.
"""

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from distilvl.errors import DistilvlError
from distilvl.students.towers import loading

_KINDS = ("WordPiece", "BPE", "Unigram")
_AT_A_TIME = 2_000  # captions
_FILES = ("tokenizer.json", "tokenizer_config.json")
_ODD = "\u00c5ngstr\u00f6m \u732b \U0001f40b \u0436 #@~"  # of letters that few vocabularies have all of
REMEDY = "Leave student.text.vocabulary out, or choose another tower."
Json = dict[str, Any]


def trim_tokenizer(tokenizer: Any, captions: Collection[str], named: Iterable[int] = ()) -> tuple[Any, list[int]]:
    """The tokenizer with the entries that `captions` use, and the former number of each of them, in the new order.

    Numbers keep their order, and padding its number where it can: RoBERTa and its kind count positions from it. Special
    and added tokens are kept, and the numbers `named`, as far as they are tokens. `DistilvlError` for no captions, or a
    tokenizer that is no WordPiece, BPE or Unigram of the tokenizers library.
    """
    if not captions:
        remedy = "Give training captions, or leave student.text.vocabulary out."
        raise DistilvlError("a vocabulary is trimmed to what captions use, and there are no captions.", remedy)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind = "none of the tokenizers library" if backend is None else type(backend.model).__name__
    if backend is None or kind not in _KINDS:
        raise cannot_trim(tokenizer, f"it is {kind}, and no {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
    kept = {number for row in _token_ids(tokenizer, captions) for number in row}
    saved: Json = json.loads(backend.to_str())  # by now without cutting and padding, which each call sets anew
    vocabulary = _entries(saved["model"])
    kept |= {*tokenizer.all_special_ids, *(token["id"] for token in saved["added_tokens"])}
    kept |= _numbers_in(saved["post_processor"], tokenizer) | ({*named} & {*tokenizer.get_vocab().values()})
    kept |= {vocabulary[piece] for piece in _always(saved["model"], vocabulary)}
    if kind == "BPE":
        kept |= {vocabulary[piece] for piece in _on_the_way(saved["model"], vocabulary, kept)}
    order = _ordered(kept, tokenizer.pad_token_id)
    place = {old: new for new, old in enumerate(order)}
    trimmed = _loaded(tokenizer, _renumbered(saved, vocabulary, place, tokenizer))
    _require_same_tokens(tokenizer, trimmed, place, [_ODD, *islice(captions, _AT_A_TIME)])
    return trimmed, order


def cannot_trim(tokenizer: Any, reason: str) -> DistilvlError:
    """That, and what to do."""
    return DistilvlError(f"{_what(tokenizer)}: {reason}.", REMEDY)


def _what(tokenizer: Any) -> str:
    return f"the vocabulary of the tokenizer {type(tokenizer).__name__} cannot be trimmed"


def blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Some texts at a time."""
    rest = iter(texts)
    while block := list(islice(rest, _AT_A_TIME)):
        yield block


def _token_ids(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """Of each text, whole."""
    for block in blocks(texts):
        yield from tokenizer(block, truncation=False, padding=False, verbose=False)["input_ids"]


def _entries(model: Json) -> dict[str, int]:
    """The model's pieces with their numbers."""
    vocabulary = model["vocab"]
    return vocabulary if isinstance(vocabulary, dict) else {piece: k for k, (piece, _) in enumerate(vocabulary)}


def _symbols(piece: str, model: Json) -> list[str]:
    """The smallest pieces that `piece` may be made of: its characters (bytes of a byte-level one) as it writes them."""
    prefix, suffix = (model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix"))
    inside = bool(prefix) and piece.startswith(prefix) and piece != prefix
    last = bool(suffix) and piece.endswith(suffix) and piece != suffix
    letters = piece[len(prefix) if inside else 0 : len(piece) - len(suffix) if last else None]
    symbols = [prefix + letter if inside or k else letter for k, letter in enumerate(letters)]
    return [*symbols[:-1], symbols[-1] + suffix] if last else symbols


def _always(model: Json, vocabulary: dict[str, int]) -> Iterator[str]:
    """Pieces that every text may need: the alphabet, what it cannot spell, bytes, the unknown; Unigram's rarest."""
    for piece in vocabulary:
        symbols = _symbols(piece, model)
        if len(symbols) == 1 or (model["type"] != "BPE" and any(symbol not in vocabulary for symbol in symbols)):
            yield piece
    if model.get("byte_fallback"):
        yield from (piece for piece in (f"<0x{byte:02X}>" for byte in range(256)) if piece in vocabulary)
    if model.get("unk_token") in vocabulary:
        yield model["unk_token"]
    if model["type"] == "Unigram":
        yield min(model["vocab"], key=lambda entry: entry[1])[0]
        if model["unk_id"] is not None:
            yield model["vocab"][model["unk_id"]][0]


def _merges(model: Json) -> list[tuple[str, str]]:
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]


def _joined(left: str, right: str, model: Json) -> str:
    return left + right[len(model.get("continuing_subword_prefix") or "") :]


def _on_the_way(model: Json, vocabulary: dict[str, int], kept: Collection[int]) -> set[str]:
    """What BPE makes, merge by merge, on its way to the pieces `kept`; it is the same in every text."""
    ranks = {pair: rank for rank, pair in enumerate(_merges(model))}
    found = set()
    for piece in (piece for piece, number in vocabulary.items() if number in kept):
        parts = _symbols(piece, model)
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            first = min(range(len(pairs)), key=lambda k: ranks.get(pairs[k], len(ranks)))
            if pairs[first] not in ranks:
                break  # an entry that no merges build: a special token, or one that is looked up whole
            parts[first : first + 2] = [_joined(*pairs[first], model)]
            found.add(parts[first])
    return found


def _ordered(kept: Collection[int], padding: int | None) -> list[int]:
    order = sorted(kept)
    if padding is not None and padding < len(order):
        order.remove(padding)
        order.insert(padding, padding)
    return order


def _renumbered(saved: Json, vocabulary: dict[str, int], place: dict[int, int], tokenizer: Any) -> Json:
    """tokenizer.json with the entries in `place` alone, under the numbers it gives them."""
    model = dict(saved["model"])
    pieces = {piece: place[number] for piece, number in vocabulary.items() if number in place}
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        model["vocab"] = [[piece, scores[piece]] for piece in sorted(pieces, key=pieces.__getitem__)]
        model["unk_id"] = None if model["unk_id"] is None else place[model["unk_id"]]
    else:
        model["vocab"] = pieces
    if model["type"] == "BPE":
        built = ((left, right, _joined(left, right, model)) for left, right in _merges(model))
        model["merges"] = [[*parts] for *parts, whole in built if {*parts, whole} <= pieces.keys()]
    return {
        **saved,
        "model": model,
        "added_tokens": [{**token, "id": place[token["id"]]} for token in saved["added_tokens"]],
        "post_processor": _processor(saved["post_processor"], place.__getitem__, tokenizer),
    }


def _processor(processor: Json | None, renumber: Callable[[int], int], tokenizer: Any) -> Json | None:
    """What puts special tokens around a text, with other numbers."""
    if processor is None or processor["type"] == "ByteLevel":
        return processor
    if processor["type"] == "Sequence":
        return {**processor, "processors": [_processor(one, renumber, tokenizer) for one in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        tokens = processor["special_tokens"].items()
        moved = {name: {**token, "ids": [renumber(number) for number in token["ids"]]} for name, token in tokens}
        return {**processor, "special_tokens": moved}
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        return {**processor, **{key: [processor[key][0], renumber(processor[key][1])] for key in ("sep", "cls")}}
    raise cannot_trim(tokenizer, f"its post-processor {processor['type']} is not known")


def _numbers_in(processor: Json | None, tokenizer: Any) -> set[int]:
    found: set[int] = set()

    def note(number: int) -> int:
        found.add(number)
        return number

    _processor(processor, note, tokenizer)
    return found


def _loaded(tokenizer: Any, saved: Json) -> Any:
    """A tokenizer like the given one, with this tokenizer.json."""
    with tempfile.TemporaryDirectory() as name, loading(_what(tokenizer), REMEDY):
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        for path in folder.iterdir():  # the others hold the former vocabulary
            if path.name not in _FILES:
                path.unlink()
        (folder / _FILES[0]).write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
        fields = json.loads((folder / _FILES[1]).read_text(encoding="utf-8"))
        fields.pop("added_tokens_decoder", None)  # former numbers; tokenizer.json has the new ones
        (folder / _FILES[1]).write_text(json.dumps(fields), encoding="utf-8")
        trimmed = type(tokenizer).from_pretrained(folder)
    for setting in ("model_max_length", "padding_side", "truncation_side"):
        setattr(trimmed, setting, getattr(tokenizer, setting))
    return trimmed


def _require_same_tokens(whole: Any, trimmed: Any, place: dict[int, int], texts: list[str]) -> None:
    """That the kept entries are the same under new numbers, and so are the texts made of them."""
    expected = {piece: place[number] for piece, number in whole.get_vocab().items() if number in place}
    same = expected == trimmed.get_vocab()
    for before, after in zip(_token_ids(whole, texts), _token_ids(trimmed, texts), strict=True):
        same = same and (not place.keys() >= {*before} or [place[number] for number in before] == after)
    if not same:
        raise cannot_trim(whole, "with fewer entries it gives other tokens")
