from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import (
    AlignConfig,
    AlignModel,
    AltCLIPConfig,
    AltCLIPModel,
    AutoImageProcessor,
    AutoTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers import Teacher
from distilvl.teachers.transformers_model import FAMILIES, TransformersTeacher

PAD, BOS, EOS, UNKNOWN = 1, 0, 2, 3
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "red", "blue", "square", "dog", "on", "the", "beach"]
TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {**TOWER, "image_size": 16, "patch_size": 8}
TEXT = {
    **TOWER,
    "vocab_size": len(WORDS),
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "sep_token_id": EOS,
    "max_position_embeddings": 100,
}
# SigLIP 2 has a tokenizer of its own kind, here without merges: letters, and a mark for a space.
LETTERS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
LETTER_TEXT = {**TEXT, "vocab_size": len(LETTERS), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
EFFICIENT_NET = {
    "image_size": 32,
    "width_coefficient": 0.25,
    "depth_coefficient": 0.2,
    "hidden_dim": 16,
    "num_hidden_layers": 3,
}
SQUARE = {"size": {"height": 16, "width": 16}}
CROPPED = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}

# Of each family: model, image processor and its fields, tokens of a text at most, padded to that many or not.
Family = tuple[Callable[[], Any], str, dict[str, Any], int, bool]
MODELS: dict[str, Family] = {
    "clip": (
        lambda: CLIPModel(
            CLIPConfig(
                text_config={**TEXT, "max_position_embeddings": 20, "eos_token_id": EOS},
                vision_config=VISION,
                projection_dim=12,
            )
        ),
        "CLIPImageProcessor",
        CROPPED,
        20,
        False,
    ),
    "siglip": (
        lambda: SiglipModel(
            SiglipConfig(
                text_config={**TEXT, "max_position_embeddings": 24, "projection_size": 16}, vision_config=VISION
            )
        ),
        "SiglipImageProcessor",
        SQUARE,
        24,
        True,
    ),
    "siglip2": (
        lambda: Siglip2Model(
            Siglip2Config(
                text_config={**LETTER_TEXT, "max_position_embeddings": 24, "projection_size": 16},
                vision_config={**TOWER, "patch_size": 8, "num_patches": 16},
            )
        ),
        "Siglip2ImageProcessor",
        {"patch_size": 8, "max_num_patches": 16},
        24,
        True,
    ),
    "align": (
        lambda: AlignModel(AlignConfig(text_config=TEXT, vision_config=EFFICIENT_NET, projection_dim=80)),
        "EfficientNetImageProcessor",
        {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        64,
        False,
    ),
    "altclip": (
        lambda: AltCLIPModel(
            AltCLIPConfig(text_config={**TEXT, "project_dim": 14}, vision_config=VISION, projection_dim=12)
        ),
        "CLIPImageProcessor",
        CROPPED,
        77,
        False,
    ),
    "chinese_clip": (
        lambda: ChineseCLIPModel(ChineseCLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)),
        "ChineseCLIPImageProcessor",
        CROPPED,
        52,
        False,
    ),
    "blip": (
        lambda: BlipForImageTextRetrieval(
            BlipConfig(
                text_config={**TEXT, "encoder_hidden_size": 16},
                vision_config=VISION,
                projection_dim=12,
                image_text_hidden_size=10,
            )
        ),
        "BlipImageProcessor",
        SQUARE,
        35,
        False,
    ),
}
TEXTS = ["a red square", "", "the dog on the beach", " ".join(["blue", "dog"] * 60), "unheard of"]


def save(family: str, folder: Path, *, model: Any = None) -> Path:
    """A tiny model of `family` with its image processor and a tokenizer of a dozen words."""
    make, processor, fields, _, pad_to_limit = MODELS[family]
    torch.manual_seed(7)
    model = make() if model is None else model
    with torch.no_grad():
        # Initial weights are so small that all rows would look alike, whatever goes in.
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": processor, **fields}))
    # SigLIP's tokenizers give no mask: the models attend to padding.
    names = ["input_ids"] if pad_to_limit else ["input_ids", "token_type_ids", "attention_mask"]
    (letter_tokenizer() if family == "siglip2" else word_tokenizer()).save_pretrained(folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "model_input_names": names}))
    return folder


def letter_tokenizer() -> Siglip2Tokenizer:
    numbers = {letter: k for k, letter in enumerate(LETTERS)}
    return Siglip2Tokenizer(numbers, [], padding_side="right", add_bos_token=False, add_eos_token=True)


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def some_images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(33, 20), (16, 16), (9, 47), (50, 50), (21, 64)]
    images = [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return [*images, Image.new("L", (30, 30), 90)]


def own_image_row(model: Any, folder: Path, image: Image.Image) -> np.ndarray:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=image.convert("RGB"), return_tensors="pt")
    with torch.inference_mode():
        if isinstance(model, BlipForImageTextRetrieval):
            return model.vision_proj(model.vision_model(**inputs).last_hidden_state[:, 0])[0].numpy()
        return model.get_image_features(**inputs).pooler_output[0].numpy()


def own_numbers(family: str, text: str) -> list[int]:
    """The tokens of a text, counted by hand."""
    *_, limit, pad_to_limit = MODELS[family]
    if family == "siglip2":
        numbers = [LETTERS.index("\u2581" if letter == " " else letter) for letter in text.lower()][: limit - 1]
        return [*numbers, 1, *[0] * (limit - 1 - len(numbers))]
    numbers = [WORDS.index(word) if word in WORDS else UNKNOWN for word in text.split()][: limit - 2]
    return [BOS, *numbers, EOS, *[PAD] * (limit - 2 - len(numbers) if pad_to_limit else 0)]


def own_text_row(model: Any, family: str, text: str) -> np.ndarray:
    input_ids = torch.tensor([own_numbers(family, text)])
    with torch.inference_mode():
        if isinstance(model, BlipForImageTextRetrieval):
            return model.text_proj(model.text_encoder(input_ids=input_ids).last_hidden_state[:, 0])[0].numpy()
        return model.get_text_features(input_ids=input_ids).pooler_output[0].numpy()


def test_the_families_tested_are_all():
    assert set(MODELS) == set(FAMILIES)


@pytest.mark.parametrize("family", MODELS)
def test_rows_are_the_models_own(family: str, tmp_path: Path):
    folder = save(family, tmp_path / f"tiny-{family}")
    teacher = load_teacher(f"{folder}?batch_size=4&device=cpu")
    assert isinstance(teacher, TransformersTeacher)
    assert isinstance(teacher, Teacher)
    model = type(MODELS[family][0]()).from_pretrained(folder).eval()
    images = some_images()
    image_rows, text_rows = teacher.encode_images(images), teacher.encode_texts(TEXTS)
    np.testing.assert_allclose(image_rows, [own_image_row(model, folder, image) for image in images], atol=1e-5)
    np.testing.assert_allclose(text_rows, [own_text_row(model, family, text) for text in TEXTS], atol=1e-5)
    # The comparison would mean little if all rows were alike.
    for rows in (image_rows, text_rows):
        apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + np.eye(len(rows))
        assert apart.min() > 1e-3
    assert image_rows.dtype == text_rows.dtype == np.float32
    assert teacher.dim == image_rows.shape[1] == text_rows.shape[1]
    assert teacher.name == f"tiny-{family}"
    assert teacher.num_parameters == sum(p.numel() for p in model.parameters())


def test_blip_rows_are_what_its_retrieval_head_compares(tmp_path: Path):
    folder = save("blip", tmp_path)
    teacher = load_teacher(str(folder))
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    image, text = some_images()[0], "a red dog"
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=image, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        score = model(**pixels, **tokens, use_itm_head=False).itm_score.item()
    rows = [torch.from_numpy(rows) for rows in (teacher.encode_images([image]), teacher.encode_texts([text]))]
    assert F.cosine_similarity(*rows).item() == pytest.approx(score, abs=1e-5)


def test_nothing_asked_nothing_answered(tmp_path: Path):
    teacher = load_teacher(str(save("clip", tmp_path)))
    assert teacher.encode_images([]).shape == teacher.encode_texts([]).shape == (0, 12)


def test_revision_follows_weights_and_format(tmp_path: Path):
    folder = save("clip", tmp_path / "clip")
    first = load_teacher(str(folder)).revision
    assert load_teacher(f"{folder}?dtype=float32&batch_size=3").revision == first
    assert load_teacher(f"{folder}?dtype=bfloat16").revision == f"{first}-bfloat16"
    model = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        model.logit_scale.add_(1)
    model.save_pretrained(folder)
    assert load_teacher(str(folder)).revision != first


def test_half_precision_is_near(tmp_path: Path):
    folder = save("siglip", tmp_path)
    whole, half = load_teacher(str(folder)), load_teacher(f"{folder}?dtype=bfloat16")
    a, b = (torch.from_numpy(teacher.encode_images(some_images())) for teacher in (whole, half))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert F.cosine_similarity(a, b).min() > 0.98


def test_a_model_without_its_retrieval_heads_is_refused(tmp_path: Path):
    config = MODELS["blip"][0]().config
    save("blip", tmp_path, model=BlipForConditionalGeneration(config))
    with pytest.raises(DistilvlError, match=r"it lacks .* more\. For BLIP, give a model of image-text retrieval"):
        load_teacher(str(tmp_path))


def test_pickled_weights_are_not_read(tmp_path: Path):
    folder = save("clip", tmp_path)
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DistilvlError, match=r"the model of .* cannot be loaded.*safetensors"):
        load_teacher(str(folder))


@pytest.mark.parametrize(
    ("file", "words"), [("preprocessor_config.json", "image processor"), ("model.safetensors", "model")]
)
def test_a_missing_part_is_named(tmp_path: Path, file: str, words: str):
    folder = save("clip", tmp_path)
    (folder / file).unlink()
    with pytest.raises(DistilvlError, match=rf"the {words} of .* cannot be loaded") as caught:
        load_teacher(str(folder))
    assert "\n" not in str(caught.value)


def test_code_beside_the_model_is_not_run(tmp_path: Path):
    folder = save("clip", tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    load_teacher(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path):
    folder = save("clip", tmp_path)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(DistilvlError, match="has no padding token"):
        load_teacher(str(folder))
