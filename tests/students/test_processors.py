from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from distilvl.errors import DistilvlError
from distilvl.students.processors import image_processor, learn_tokenizer, output_size, pretrained_tokenizer

CAPTIONS = ["A red circle, above a blue square!", "a small green star", "two pink hearts; a red one"]


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    """A resumed run builds its tokenizer anew: other numbers would scramble the trained word vectors."""
    code = (
        "from distilvl.students.processors import learn_tokenizer as l; "
        f"print(sorted(l({CAPTIONS!r}, 60, 32).get_vocab().items()))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert outputs == {str(sorted(learn_tokenizer(CAPTIONS, 60, 32).get_vocab().items())) + "\n"}


def test_frequent_words_stay_whole_and_others_fall_into_letters() -> None:
    tokenizer = learn_tokenizer(CAPTIONS, 60, 32)
    assert tokenizer.tokenize("a Red") == ["a", "red"]
    assert tokenizer.tokenize("rat") == ["r", "##a", "##t"]
    assert tokenizer.tokenize("zz") == ["[UNK]"]
    assert len(tokenizer) <= 60


@given(st.lists(st.sampled_from("abcdefgh "), min_size=1, max_size=30).map("".join))
def test_any_text_of_known_letters_has_no_unknown_token(text: str) -> None:
    tokenizer = learn_tokenizer(["a b c d e f g h abc dead"], 40, 64)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id


def test_too_small_a_vocabulary_says_how_many_it_takes() -> None:
    with pytest.raises(DistilvlError, match=r"student\.text\.vocabulary to"):
        learn_tokenizer(CAPTIONS, 10, 32)


@pytest.mark.parametrize("size", [48, 400])
@pytest.mark.parametrize(
    "name", ["ViT", "DeiT", "BEiT", "ConvNeXt", "ResNet", "DINOv2", "MobileViT", "MobileNet V2", "EfficientNet", "CLIP"]
)
def test_any_processor_gives_pictures_of_the_set_size(tower: Callable[[str], Path], name: str, size: int) -> None:
    """Each knows other names of a size; ConvNeXt's and ResNet's know the shorter side only, and crop by themselves."""
    processor = image_processor(str(tower(name)), size, AutoModel.from_pretrained(tower(name)))
    assert output_size(processor) == (size, size)
    assert output_size(image_processor(str(tower(name)), None, AutoModel.from_pretrained(tower(name)))) == (32, 32)


def test_a_processor_that_gives_no_pictures_of_a_size_is_refused(tower: Callable[[str], Path]) -> None:
    with pytest.raises(DistilvlError, match=r"Siglip2ImageProcessor does not give pictures of 48 x 48 pixels"):
        image_processor(str(tower("SigLIP 2")), 48, AutoModel.from_pretrained(tower("CLIP")))


def test_a_second_normalisation_is_folded_into_the_first(tower: Callable[[str], Path]) -> None:
    """EfficientNet's processor divides by the standard deviation twice, and says so in neither of its attributes."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    original = AutoImageProcessor.from_pretrained(tower("EfficientNet"))
    assert original.include_top
    processor = image_processor(str(tower("EfficientNet")), None, AutoModel.from_pretrained(tower("EfficientNet")))
    given, expected = (p(picture, return_tensors="np")["pixel_values"] for p in (processor, original))
    np.testing.assert_allclose(given, expected, atol=1e-5)
    plain = processor(picture, do_normalize=False, return_tensors="np")["pixel_values"]
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))
    np.testing.assert_allclose((plain - mean) / std, given, atol=1e-5)


def test_a_tokenizer_without_a_padding_token_pads_with_its_end(tower: Callable[[str], Path]) -> None:
    assert AutoTokenizer.from_pretrained(tower("GPT-2")).pad_token is None
    tokenizer = pretrained_tokenizer(str(tower("GPT-2")), 16)
    assert tokenizer.pad_token == tokenizer.eos_token
    rows = tokenizer(["a", "a dog number"], padding=True)
    assert rows["attention_mask"] == [[1, 1, 1, 0, 0], [1] * 5]
