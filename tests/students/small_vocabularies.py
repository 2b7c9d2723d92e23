"""Text towers with random weights whose tokenizers were trained on made-up words: one of each kind that is trimmed."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SIZE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 66,
}  # fmt: skip
_SYLLABLES = [first + vowel for first in "bdfgklmnprst" for vowel in "aeiou"]


def _words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(_SYLLABLES, k=draw.choice((1, 2, 2, 3, 3, 4)))) for _ in range(count)]


WORDS = _words(0, 400)
TEXTS = [" ".join(random.Random(k).choices(WORDS, k=8)) + "." for k in range(1500)] + [
    "a b c d e f g , ! ? ' - é 猫"
] * 3
CAPTIONS = [" ".join(random.Random(-k - 1).choices(WORDS[:40], k=5)) + "." for k in range(60)]
"""Of a tenth of the words: what the vocabularies are trimmed to."""


class Tower(NamedTuple):
    model: Any
    tokenizer: Any


def _train(tokenizer: Tokenizer, trainer: Any) -> Any:
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _byte_bpe(special: list[str], suffix: str = "") -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE: special tokens, all bytes (twice with a suffix), what merges make."""
    ending = {"end_of_word_suffix": suffix} if suffix else {}
    tokenizer = Tokenizer(models.BPE(**ending))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if suffix:
        split = pre_tokenizers.Split(" ", "removed")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False, **ending)
    merges = [tuple(merge) for merge in _json(_train(tokenizer, trainer))["merges"]]
    ends = [letter + suffix for letter in alphabet] if suffix else []
    pieces = dict.fromkeys([*special, *alphabet, *ends, *("".join(merge) for merge in merges)])
    return {piece: number for number, piece in enumerate(pieces)}, merges


def _json(tokenizer: Tokenizer) -> Any:
    return json.loads(tokenizer.to_str())["model"]


def _unigram(special: list[str], unknown: str) -> list[tuple[str, float]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=special, unk_token=unknown, show_progress=False, max_piece_length=12
    )
    return [(piece, score) for piece, score in _json(_train(tokenizer, trainer))["vocab"]]


def _bert() -> Tower:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    learnt = sorted(set(_train(tokenizer, trainer).get_vocab()) - {*special})
    letters = {piece.removeprefix("##") for piece in learnt if len(piece.removeprefix("##")) == 1}
    pieces = dict.fromkeys(["[PAD]", *(f"[unused{k}]" for k in range(9)), *special[1:], *learnt])
    pieces |= dict.fromkeys([*sorted(letters), *(f"##{letter}" for letter in sorted(letters))])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    config = hf.BertConfig(vocab_size=len(vocabulary), **SIZE)
    return Tower(hf.BertModel(config), hf.BertTokenizer(vocab=vocabulary))


def _roberta() -> Tower:
    vocabulary, merges = _byte_bpe(["<s>", "<pad>", "</s>", "<unk>"])
    vocabulary["<mask>"] = len(vocabulary)
    config = hf.RobertaConfig(vocab_size=len(vocabulary), pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZE)
    return Tower(hf.RobertaModel(config), hf.RobertaTokenizer(vocab=vocabulary, merges=merges))


def _gpt2() -> Tower:
    vocabulary, merges = _byte_bpe([])
    end = vocabulary.setdefault("<|endoftext|>", len(vocabulary))
    config = hf.GPT2Config(
        vocab_size=len(vocabulary), n_embd=16, n_layer=2, n_head=2, n_positions=66, bos_token_id=end, eos_token_id=end
    )
    tokenizer = hf.GPT2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.pad_token = tokenizer.eos_token
    return Tower(hf.GPT2Model(config), tokenizer)


def _clip(legacy: bool) -> Tower:
    """With the number 2 for the end that OpenAI's folders name, or the right one: that decides how it is found."""
    vocabulary, merges = _byte_bpe([], "</w>")
    begin, end = (vocabulary.setdefault(token, len(vocabulary)) for token in ("<|startoftext|>", "<|endoftext|>"))
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if not legacy:
        ids = {"pad_token_id": end, "bos_token_id": begin, "eos_token_id": end}
    config = hf.CLIPTextConfig(vocab_size=len(vocabulary), **{**SIZE, **ids})
    return Tower(hf.CLIPTextModel(config), hf.CLIPTokenizer(vocab=vocabulary, merges=merges))


def _xlm_roberta() -> Tower:
    vocabulary = [*_unigram(["<s>", "<pad>", "</s>", "<unk>"], "<unk>"), ("<mask>", 0.0)]
    config = hf.XLMRobertaConfig(vocab_size=len(vocabulary), pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZE)
    return Tower(hf.XLMRobertaModel(config), hf.XLMRobertaTokenizer(vocab=vocabulary))


def _t5() -> Tower:
    """With sentinels behind the pieces, and a table of more rows than there are tokens, as the published ones."""
    sentinels = [(f"<extra_id_{k}>", 0.0) for k in reversed(range(100))]
    vocabulary = [*_unigram(["<pad>", "</s>", "<unk>"], "<unk>"), *sentinels]
    config = hf.T5Config(vocab_size=len(vocabulary) + 28, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    return Tower(hf.T5EncoderModel(config), hf.T5Tokenizer(vocab=vocabulary))


def _albert() -> Tower:
    vocabulary = _unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "<unk>")
    config = hf.AlbertConfig(vocab_size=len(vocabulary), embedding_size=8, pad_token_id=0, **SIZE)
    return Tower(hf.AlbertModel(config), hf.AlbertTokenizer(vocab=vocabulary))


def _llama(look_up: bool) -> Tower:
    """BPE of characters with bytes for unknown ones (Llama 2), or of bytes with whole words looked up (Llama 3)."""
    special = ["<unk>", "<s>", "</s>"]
    if look_up:
        tokenizer = Tokenizer(models.BPE(*_byte_bpe(special), ignore_merges=True))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        learner = Tokenizer(models.BPE())
        learner.normalizer, learner.pre_tokenizer = spaces, pre_tokenizers.Split("▁", "merged_with_next")
        learnt = _train(learner, trainers.BpeTrainer(vocab_size=600, show_progress=False)).get_vocab()
        pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(learnt, key=learnt.__getitem__)]
        ids = {piece: number for number, piece in enumerate(pieces)}
        # As converters make them: every pair of pieces that is a piece, by its number; many ways to one piece.
        pairs = [(a, b) for a, b in itertools.product(learnt, learnt) if a + b in learnt]
        merges = sorted(pairs, key=lambda pair: (ids[pair[0] + pair[1]], ids[pair[0]]))
        tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer, tokenizer.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
        parts = decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()
        tokenizer.decoder = decoders.Sequence([*parts])
    ends = [("<s>", special.index("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=ends)
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    config = hf.LlamaConfig(vocab_size=len(fast), num_key_value_heads=2, bos_token_id=1, eos_token_id=2, **SIZE)
    return Tower(hf.LlamaModel(config), fast)


KINDS: dict[str, Callable[[], Tower]] = {
    "BERT": _bert,
    "RoBERTa": _roberta,
    "GPT-2": _gpt2,
    "CLIP": lambda: _clip(False),
    "CLIP, legacy": lambda: _clip(True),
    "XLM-R": _xlm_roberta,
    "T5": _t5,
    "ALBERT": _albert,
    "Llama 2": lambda: _llama(False),
    "Llama 3": lambda: _llama(True),
}


@cache
def tower(kind: str) -> Tower:
    """A tower of that kind, its weights the same each time."""
    hf.utils.logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, tokenizer = KINDS[kind]()
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_max_length = 64
    return Tower(model.eval(), tokenizer)
