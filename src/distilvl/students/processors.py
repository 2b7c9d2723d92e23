"""What stands before a tower: the image processor and the tokenizer, both saved with the student."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerFast

from distilvl.errors import DistilvlError
from distilvl.students.positions import fit_positions
from distilvl.students.pretrained import first_line, quiet_transformers

CONVERTS = "do_convert_rgb"
"""The setting of an image processor that makes RGB of other modes."""

_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_BICUBIC = 3
_NORMALIZER = normalizers.BertNormalizer(lowercase=True)
_WORDS = pre_tokenizers.BertPreTokenizer()


def image_processor(source: str | None, size: int | None, model: Any) -> Any:
    """The tower's own image processor, set to `size`; `model`'s positions are fitted to it, in place.

    A new tower (no `source`) gets a plain one: resize, scale to [-1, 1].
    """
    side = size or _model_size(model)
    if source is not None:
        with quiet_transformers():
            try:
                processor = AutoImageProcessor.from_pretrained(source)
            except (OSError, ValueError) as error:
                reason = first_line(error)
                raise DistilvlError(
                    f"tower {source!r} has no image processor: {reason}.", "Add its preprocessor_config.json."
                ) from error
    else:
        processor = _plain_processor(side)
    take_any_mode(processor)
    if size is not None:
        _set_size(processor, size)
    if side is not None:
        fit_positions(model, side)
    return processor


def take_any_mode(processor: Any) -> None:
    """Let the processor make RGB of PIL images of other modes, transparent parts on white, in `encode`, too.

    Without it, it fails at some modes and takes the channels of others for red, green and blue. It neither knows of
    EXIF orientation nor of profiles, and cuts 16 bits off at 255: see docs/pixels.md.
    """
    setattr(processor, CONVERTS, True)


def _model_size(model: Any) -> int:
    size = getattr(model.config, "image_size", None)
    return size if isinstance(size, int) else 224


def _plain_processor(side: int) -> Any:
    fields = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "size": {"height": side, "width": side},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "preprocessor_config.json").write_text(json.dumps(fields), encoding="utf-8")
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(folder)


def _set_size(processor: Any, size: int) -> None:
    """Square inputs of `size`: by resizing both sides, or the shorter one and then a centre crop."""
    square = {"height": size, "width": size}
    if getattr(processor, "do_center_crop", None):
        processor.crop_size = square
        processor.size = {"shortest_edge": size}
    else:
        processor.size = square


def pretrained_tokenizer(source: str, max_length: int) -> Any:
    """The tokenizer at `source`, cutting at `max_length` tokens."""
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise DistilvlError(f"tower {source!r} has no tokenizer: {reason}.", "Add its files.") from error
    tokenizer.model_max_length = max_length
    return tokenizer


def learn_tokenizer(captions: Collection[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer of at most `vocabulary` entries: the letters of `captions`, and their words.

    The most frequent words come first, ties in alphabetical order, so that the same captions always give the same
    numbers: a resumed run builds its tokenizer anew. (The trainer of the tokenizers library breaks ties by hash.)

    Raises:
        DistilvlError: no captions to learn from, or fewer entries than letters.
    """
    if not captions:
        raise DistilvlError(
            "a new text tower learns its vocabulary from captions, and there are none.",
            "Name a pretrained text tower (student.text.model), or give training captions.",
        )
    entries = _vocabulary(captions, vocabulary)
    tokenizer = Tokenizer(models.WordPiece({word: k for k, word in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _NORMALIZER, _WORDS
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **_SPECIAL)


def _vocabulary(captions: Collection[str], size: int) -> list[str]:
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in _WORDS.pre_tokenize_str(_NORMALIZER.normalize_str(caption)))
    letters = sorted({letter for word in counts for letter in word})
    entries = [*_SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    if len(entries) > size:
        raise DistilvlError(
            f"a vocabulary of {size} cannot hold the {len(letters)} letters of the captions.",
            f"Set student.text.vocabulary to {len(entries)} or more.",
        )
    known = set(entries)
    words = [word for word in sorted(counts, key=lambda word: (-counts[word], word)) if word not in known]
    return [*entries, *words[: size - len(entries)]]
