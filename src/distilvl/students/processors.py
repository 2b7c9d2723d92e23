"""What stands before a tower: the image processor and the tokenizer, both saved with the student."""

import json
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerFast
from transformers.image_utils import SizeDict

from distilvl.errors import DistilvlError
from distilvl.students.heads import STAGES_TYPE
from distilvl.students.timm_towers import TIMM_TYPE, preprocessing
from distilvl.students.towers import loading, own_config, quiet_transformers

CONVERTS = "do_convert_rgb"  # the setting of an image processor that makes RGB of other modes
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_BICUBIC = 3
_FILE = "preprocessor_config.json"
_MORE_STEPS = ("include_top", "rescale_offset")
_UNEQUAL = (Image.new("RGB", (60, 40)), Image.new("RGB", (40, 60)))
_NORMALIZER = normalizers.BertNormalizer(lowercase=True)
_WORDS = pre_tokenizers.BertPreTokenizer()


def image_processor(source: str | None, size: int | None, model: Any) -> Any:
    """The tower's own image processor, so set that it gives pictures of `size` x `size`, and plainly normalised ones.

    A new tower (no `source`) gets a plain one: resize, scale to [-1, 1]. `DistilvlError` if there is none of this kind.
    """
    how = processor_kwargs(model)
    if source is None:
        side = size or getattr(own_config(model.config, "image"), "image_size", None) or 224
        processor = _from_fields(_plain_fields(side), how)
    elif model.config.model_type == TIMM_TYPE and not Path(source, _FILE).is_file():
        processor = _from_fields(preprocessing(model.config), how)
    else:
        # Beside timm's own config.json it would not be looked for.
        named = {"image_processor_filename": _FILE} if how else {}
        with loading(f"tower {source!r} has no image processor", f"Add its {_FILE}."):
            processor = AutoImageProcessor.from_pretrained(source, **named, **how)
    take_any_mode(processor)
    if size is not None:
        _set_size(processor, size)
    fold_normalisation(processor)
    return processor


def take_any_mode(processor: Any) -> None:
    """Let the processor make RGB of PIL images of other modes in `encode`, too: see docs/pixels.md."""
    setattr(processor, CONVERTS, True)


def processor_kwargs(model: Any) -> dict[str, str]:
    """With which arguments the image processor before `model` is loaded: everywhere the same pixels for timm's.

    Where torchvision is installed, and timm needs it, transformers would resize with it, which rounds otherwise.
    """
    return {"backend": "pil"} if model.config.model_type in (TIMM_TYPE, STAGES_TYPE) else {}


def _plain_fields(size: int | Sequence[int]) -> dict[str, Any]:
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
        "size": {"height": height, "width": width}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "resample": _BICUBIC, "rescale_factor": 1 / 255,
    }  # fmt: skip


def _from_fields(fields: dict[str, Any], how: dict[str, str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, _FILE).write_text(json.dumps(fields), encoding="utf-8")
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(folder, **how)


def _set_size(processor: Any, size: int) -> None:
    """Square inputs of `size`: by resizing both sides, or the shorter one and then a centre crop."""
    square, shorter = {"height": size, "width": size}, {"shortest_edge": size}
    crops = bool(getattr(processor, "do_center_crop", None))
    if crops:
        processor.crop_size = square
    if getattr(processor, "do_pad", None):
        processor.do_pad = False
    # ConvNeXt's and ResNet's crops by itself, and knows the shorter side only.
    for wanted in (shorter, square) if crops else (square, shorter):
        processor.size = SizeDict(**wanted) if isinstance(processor.size, SizeDict) else wanted
        if output_size(processor) == (size, size):
            return
    name = type(processor).__name__.removesuffix("Pil")
    remedy = "Leave student.image.size unset (null), or correct the tower's preprocessor_config.json."
    raise DistilvlError(f"the image processor {name} does not give pictures of {size} x {size} pixels.", remedy)


def output_size(processor: Any) -> tuple[int, int] | None:
    """Height and width of what `processor` gives; none where they differ between pictures, or it gives none."""
    try:
        shapes = {np.shape(processor([picture], return_tensors="np")["pixel_values"]) for picture in _UNEQUAL}
    except Exception:  # a size that the processor does not know makes it raise anything
        return None
    shape = shapes.pop()
    return (shape[2], shape[3]) if not shapes and len(shape) == 4 else None


def fold_normalisation(processor: Any) -> None:
    """Have `image_mean` and `image_std`, by which training and exports go, say all that `processor` does to numbers.

    EfficientNet's divides by the standard deviation twice, others shift by one. Where not, `trial` refuses it.
    """
    if not any(getattr(processor, name, None) for name in _MORE_STEPS):
        return
    ends = [Image.new("RGB", (9, 9), (value,) * 3) for value in (0, 255)]
    low, high = np.asarray(processor(ends, return_tensors="np")["pixel_values"], dtype=np.float64).mean(axis=(2, 3))
    for name in _MORE_STEPS:
        if hasattr(processor, name):
            setattr(processor, name, False)
    processor.do_rescale = processor.do_normalize = True
    processor.rescale_factor = 1 / 255
    processor.image_mean, processor.image_std = (-low / (high - low)).tolist(), (1 / (high - low)).tolist()


def pretrained_tokenizer(source: str, max_length: int) -> Any:
    """The tokenizer at `source`, cutting at `max_length` tokens and padding behind them."""
    with loading(f"tower {source!r} has no tokenizer", "Add its files."):
        tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token is None:
        # Language models such as GPT-2 have none. Whatever stands there is masked.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if tokenizer.pad_token is None:
        remedy = "Set pad_token in its tokenizer_config.json."
        raise DistilvlError(f"the tokenizer of tower {source!r} has no token to pad with.", remedy)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_max_length = max_length
    return tokenizer


def learn_tokenizer(captions: Collection[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer of at most `vocabulary` entries: the letters of `captions`, and their words.

    The most frequent words come first, ties in alphabetical order, so that the same captions always give the same
    numbers: a resumed run builds its tokenizer anew. (The trainer of the tokenizers library breaks ties by hash.)
    """
    require_captions(captions)
    entries = _vocabulary(captions, vocabulary)
    tokenizer = Tokenizer(models.WordPiece({word: k for k, word in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _NORMALIZER, _WORDS
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **_SPECIAL)


def _vocabulary(captions: Collection[str], size: int) -> list[str]:
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in _WORDS.pre_tokenize_str(_NORMALIZER.normalize_str(caption)))
    letters = sorted({letter for word in counts for letter in word})
    entries = [*_SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    return fill_vocabulary(entries, counts, size, len(letters))


def require_captions(captions: Collection[str]) -> None:
    """`DistilvlError` where there is nothing to learn a vocabulary from."""
    if not captions:
        remedy = "Name a pretrained text tower (student.text.model), or give training captions."
        raise DistilvlError("a new text tower learns its vocabulary from captions, and there are none.", remedy)


def fill_vocabulary(entries: Sequence[str], words: Mapping[str, int], size: int, letters: int) -> list[str]:
    """`entries`, which have all `letters` in them, and the most frequent of `words` behind them, `size` in all.

    Of equally frequent ones the first in alphabetical order. `DistilvlError` where `entries` are more than `size`.
    """
    if len(entries) > size:
        what = f"a vocabulary of {size} cannot hold the {letters} letters of the captions."
        raise DistilvlError(what, f"Set student.text.vocabulary to {len(entries)} or more.")
    known = set(entries)
    new = [word for word in sorted(words, key=lambda word: (-words[word], word)) if word not in known]
    return [*entries, *new[: size - len(entries)]]
