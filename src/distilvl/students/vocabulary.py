"""Trim a pretrained text tower to the vocabulary of its captions: fewer entries in tokenizer and table, renumbered.

Texts made of kept pieces have the same embeddings as before; `distilvl.students.pieces` says why.
"""

import copy
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AutoConfig

from distilvl.config import StaticTextConfig, TextTowerConfig, TransformerTextConfig
from distilvl.errors import DistilvlError
from distilvl.students.pieces import REMEDY, blocks, cannot_trim, trim_tokenizer
from distilvl.students.processors import pretrained_tokenizer
from distilvl.students.static import unknown_rate
from distilvl.students.storage import route
from distilvl.students.towers import loading, own_config, pooling_layer_kwargs, tower_method

_PROBES, _PROBE_LENGTH = 8, 16  # captions that the towers before and after are compared on, and tokens of each
_ALIKE = 1e-5


def trim_vocabulary(model: Any, tokenizer: Any, captions: Collection[str]) -> tuple[Any, Any]:
    """A text tower and its tokenizer with the entries that `captions` use; both given ones stay as they are.

    The same captions give the same numbers. `DistilvlError` for no captions, a tokenizer that is no WordPiece, BPE or
    Unigram of the tokenizers library, or a tower that would put out something else.
    """
    table, text = word_embeddings(model), own_config(model.config, "text")
    named = {number for value in _token_ids(text).values() for number in _as_list(value)}
    smaller, order = trim_tokenizer(tokenizer, captions, named)
    if max(order) >= len(table):
        entry = tokenizer.convert_ids_to_tokens(max(order))
        raise cannot_trim(tokenizer, f"its entry {entry!r} has no row in the tower's table of {len(table)}")
    weights, rows = model.state_dict(), torch.tensor(order)
    for name, tensor in weights.items():  # a tied table goes by several names
        if tensor.data_ptr() == table.data_ptr() and tensor.shape == table.shape:
            weights[name] = tensor[rows]
    with loading(f"the vocabulary of the text tower (model_type {text.model_type}) cannot be trimmed", REMEDY):
        with torch.random.fork_rng(devices=[]):  # the new random weights are thrown away
            trimmed = type(model)(_renumbered(model.config, order), **pooling_layer_kwargs(model)).eval()
        trimmed.load_state_dict(weights)
        probes = list(islice(captions, _PROBES))
        before, after = _outputs(model, tokenizer, probes), _outputs(trimmed, smaller, probes)
    if not torch.allclose(before, after, rtol=_ALIKE, atol=_ALIKE * float(before.abs().max())):
        raise cannot_trim(tokenizer, "the tower makes something else of the same captions afterwards")
    return trimmed, smaller


def describe_trimming(tower: Any, source: str, texts: Sequence[str]) -> dict[str, Any]:
    """What trimming did to `tower`, a student's text tower that was the model `source`, as JSON.

    Entries of its table before and after, the parameters that this saved, and the share (0 to 1) of `texts` that are
    now cut into other tokens.
    """
    with loading(f"cannot load tower {source!r}", "Put it back where it was."):
        before = own_config(AutoConfig.from_pretrained(source), "text").vocab_size
    entries, channels = word_embeddings(tower.model).shape
    whole, changed = pretrained_tokenizer(source, tower.tokenizer.model_max_length), 0
    for block in blocks(texts):
        pairs = zip(
            *(tokenizer(block, truncation=True).encodings for tokenizer in (whole, tower.tokenizer)), strict=True
        )
        changed += sum(one.tokens != other.tokens for one, other in pairs)
    return {
        "entries_before": before,
        "entries": entries,
        "parameters_saved": (before - entries) * channels,
        "share_cut_otherwise": changed / max(len(texts), 1),
    }


def word_embeddings(model: Any) -> Tensor:
    """The table of a text tower, (entries, C); `DistilvlError` where transformers does not know which it is."""
    config = own_config(model.config, "text")
    for part in (getattr(model, "text_model", model), model):
        try:
            found = part.get_input_embeddings()
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(found, nn.Embedding) and found.num_embeddings == config.vocab_size:
            return found.weight.detach()
    what = f"transformers does not say which table of the text tower (model_type {config.model_type}) is of words"
    raise DistilvlError(f"{what}, so its vocabulary cannot be trimmed.", REMEDY)


def _renumbered(whole: Any, order: Sequence[int]) -> Any:
    """The config of a tower whose entry `k` was `order[k]`."""
    config, place = copy.deepcopy(whole), {old: new for new, old in enumerate(order)}
    text = own_config(config, "text")
    for name, value in _token_ids(text).items():
        # Defaults beyond the table (GPT-2's 50256 of a small one) mean nothing; what no token has is none.
        moved = [place.get(number, number if number >= text.vocab_size else None) for number in _as_list(value)]
        setattr(text, name, moved if isinstance(value, list) else moved[0])
    text.vocab_size = len(order)
    return config


def _token_ids(config: Any) -> dict[str, int | list[int]]:
    """The fields that name tokens by number: `pad_token_id` and the like."""
    fields = config.to_dict().items()
    return {name: value for name, value in fields if name.endswith("_token_id") and isinstance(value, int | list)}


def _as_list(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _outputs(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """What a tower makes of the beginnings of texts, (n, positions, C)."""
    given = tokenizer(texts, truncation=True, max_length=_PROBE_LENGTH, padding=True, return_tensors="pt")
    method = getattr(model, tower_method(model, "text"))
    with torch.no_grad():
        found = method(input_ids=given["input_ids"], attention_mask=given["attention_mask"], return_dict=True)
    return found["last_hidden_state"]  # type: ignore[no-any-return]


def describe_vocabulary(config: TextTowerConfig, student: SentenceTransformer, texts: Sequence[str]) -> dict[str, Any]:
    """What a run's result says, under the key `vocabulary`, of a tower whose vocabulary was learnt or trimmed.

    Of a static tower the number of its entries and the share of the tokens of `texts` that are none of them; of a
    trimmed one what `describe_trimming` tells. Nothing of others.
    """
    tower = route(student, "text")[0]
    if isinstance(config, StaticTextConfig):
        rate = unknown_rate(tower.tokenizer, texts)
        return {"vocabulary": {"entries": tower.tokenizer.get_vocab_size(), "unknown_rate": rate}}
    if isinstance(config, TransformerTextConfig) and config.vocabulary == "trim" and config.model is not None:
        return {"vocabulary": describe_trimming(tower, config.model, texts)}
    return {}
