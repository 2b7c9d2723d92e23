"""Tiny towers of many model types with random weights, in folders as transformers saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SIDE = 32
SIZE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
VIT = {"image_size": SIDE, "patch_size": 8, **SIZE}
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
STAGES: dict[str, Any] = {"image_size": SIDE, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 32]}
PYRAMID = {**STAGES, "num_attention_heads": [1, 1, 2, 2]}
CNN: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
SWIN = {"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 3, "num_heads": 2}
EFFICIENT = {"image_size": SIDE, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320}
SQUARE = {"height": SIDE, "width": SIDE}

# RoBERTa and its kind count positions from the padding's number on, which is 1 for them.
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA_TOKENS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
WORDS = ("[MASK]", "picture", "number", "word", "a", "dog", *(str(k) for k in range(40)))
TEXT: dict[str, Any] = {"vocab_size": 4 + len(WORDS), "max_position_embeddings": 64, **SIZE}
ROBERTA = {**TEXT, "max_position_embeddings": 66, "pad_token_id": 1}
CLIP_TEXT = {**TEXT, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
VOCABULARY = TEXT["vocab_size"]


def tokenizer(first: tuple[str, ...] = BERT_TOKENS, pad: bool = True) -> Any:
    """WordPiece of a few whole words, special tokens `first`."""
    words = {word: k for k, word in enumerate((*first, *WORDS))}
    fast = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    fast.normalizer, fast.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    ends = [(token, words[token]) for token in ("[CLS]", "[SEP]")]
    fast.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    more = {"pad_token": "[PAD]"} if pad else {}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="[CLS]", eos_token="[SEP]", model_max_length=512, **special, **more
    )


def _both(kind: str, text: dict[str, Any], vision: dict[str, Any], **fields: Any) -> Any:
    """A model of images and texts; `kind` as transformers writes it."""
    parts = {
        name: getattr(hf, f"{kind}{part}Config")(**given).to_dict()
        for name, part, given in (("text_config", "Text", text), ("vision_config", "Vision", vision))
    }
    return getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**parts, **fields))


def _new(kind: str, fields: dict[str, Any], suffix: str = "Model") -> Any:
    return getattr(hf, f"{kind}{suffix}")(getattr(hf, f"{kind}Config")(**fields))


def _shorter(kind: str, side: int = SIDE) -> Any:
    """A processor that resizes the shorter side and crops."""
    crop = {"height": SIDE, "width": SIDE}
    return getattr(hf, f"{kind}ImageProcessor")(size={"shortest_edge": side}, crop_size=crop)


def _square(kind: str, **more: Any) -> Any:
    return getattr(hf, f"{kind}ImageProcessor")(size=SQUARE, **more)


def _crop(kind: str) -> Any:
    return _square(kind, crop_size=SQUARE)


def _bare(kind: str) -> Any:
    return getattr(hf, f"{kind}ImageProcessor")(size={"shortest_edge": SIDE})


Parts = Callable[[], tuple[Any, ...]]

IMAGE_TOWERS: dict[str, Parts] = {
    "ViT": lambda: (_new("ViT", VIT), _square("ViT")),
    "DeiT": lambda: (_new("DeiT", VIT), hf.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size=SQUARE)),
    "BEiT": lambda: (_new("Beit", {**VIT, "use_relative_position_bias": True}), _crop("Beit")),
    "BEiT, shared bias": lambda: (
        _new("Beit", {**VIT, "use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True}),
        _crop("Beit"),
    ),
    "Data2Vec vision": lambda: (_new("Data2VecVision", {**VIT, "use_relative_position_bias": True}), _crop("Beit")),
    "ConvNeXt": lambda: (_new("ConvNext", STAGES), _bare("ConvNext")),
    "ConvNeXt V2": lambda: (_new("ConvNextV2", STAGES), _bare("ConvNext")),
    "ResNet": lambda: (_new("ResNet", {**CNN, "layer_type": "basic"}), _bare("ConvNext")),
    "RegNet": lambda: (_new("RegNet", {**CNN, "groups_width": 4}), _bare("ConvNext")),
    "BiT": lambda: (_new("Bit", {**CNN, "num_groups": 4}), _shorter("Bit", 36)),
    "Swin": lambda: (_new("Swin", SWIN), _square("ViT")),
    "Swin V2": lambda: (_new("Swinv2", SWIN), _square("ViT")),
    "MobileViT": lambda: (
        _new(
            "MobileViT",
            {
                "image_size": SIDE,
                "hidden_sizes": [16, 16, 16],
                "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
                "num_attention_heads": 2,
            },
        ),
        _shorter("MobileViT", 36),
    ),
    "MobileViT V2": lambda: (
        _new("MobileViTV2", {"image_size": 64, "width_multiplier": 0.25}),
        hf.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    ),
    "MobileNet V1": lambda: (
        _new("MobileNetV1", {"image_size": SIDE, "depth_multiplier": 0.25}),
        _shorter("MobileNetV1", 36),
    ),
    "MobileNet V2": lambda: (
        _new("MobileNetV2", {"image_size": SIDE, "depth_multiplier": 0.25}),
        _shorter("MobileNetV2", 36),
    ),
    "EfficientNet": lambda: (_new("EfficientNet", EFFICIENT), _square("EfficientNet")),
    "DINOv2": lambda: (_new("Dinov2", DINO), _shorter("Bit", 36)),
    "DINOv2 with registers": lambda: (_new("Dinov2WithRegisters", DINO), _shorter("Bit", 36)),
    "DINOv3": lambda: (_new("DINOv3ViT", VIT), _square("ViT")),
    "ViT-MSN": lambda: (_new("ViTMSN", VIT), _square("ViT")),
    "ViT-MAE": lambda: (_new("ViTMAE", VIT), _square("ViT")),
    "LeViT": lambda: (
        _new(
            "Levit",
            {
                "image_size": 64,
                "hidden_sizes": [16, 16, 16],
                "num_attention_heads": [2, 2, 2],
                "depths": [1, 1, 1],
                "key_dim": [8, 8, 8],
            },
        ),
        hf.LevitImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    ),
    "PVT": lambda: (_new("Pvt", PYRAMID), _square("Pvt")),
    "PVT V2": lambda: (_new("PvtV2", PYRAMID), _square("Pvt")),
    "SegFormer": lambda: (_new("Segformer", PYRAMID), _square("Segformer")),
    "PoolFormer": lambda: (
        _new("PoolFormer", {key: STAGES[key] for key in ("depths", "hidden_sizes")}),
        _shorter("PoolFormer", 36),
    ),
    "FocalNet": lambda: (
        _new("FocalNet", {"image_size": SIDE, "embed_dim": 8, "depths": [1, 1], "focal_levels": [1, 1]}),
        _shorter("Bit", 36),
    ),
    "YOLOS": lambda: (
        _new("Yolos", {**VIT, "image_size": [32, 48], "num_detection_tokens": 4}),
        hf.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}),
    ),
    "VideoMAE": lambda: (_new("VideoMAE", {**VIT, "num_frames": 2}), _shorter("VideoMAE")),
    "ViT, not square": lambda: (
        _new("ViT", {**VIT, "image_size": [32, 48]}),
        hf.ViTImageProcessor(size={"height": 32, "width": 48}),
    ),
}

TEXT_TOWERS: dict[str, Parts] = {
    "BERT": lambda: (_new("Bert", TEXT), tokenizer()),
    "RoBERTa": lambda: (_new("Roberta", ROBERTA), tokenizer(ROBERTA_TOKENS)),
    "XLM-R": lambda: (_new("XLMRoberta", ROBERTA), tokenizer(ROBERTA_TOKENS)),
    "CamemBERT": lambda: (_new("Camembert", ROBERTA), tokenizer(ROBERTA_TOKENS)),
    "DistilBERT": lambda: (
        _new("DistilBert", {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48}),
        tokenizer(),
    ),
    "ALBERT": lambda: (_new("Albert", {**TEXT, "embedding_size": 16}), tokenizer()),
    "MPNet": lambda: (_new("MPNet", ROBERTA), tokenizer(ROBERTA_TOKENS)),
    "ELECTRA": lambda: (_new("Electra", {**TEXT, "embedding_size": 16}), tokenizer()),
    "DeBERTa-v2": lambda: (
        _new("DebertaV2", {**TEXT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}),
        tokenizer(),
    ),
    "T5": lambda: (_new("T5", {"vocab_size": VOCABULARY, **T5}, "EncoderModel"), tokenizer()),
    "T5 with its decoder": lambda: (_new("T5", {"vocab_size": VOCABULARY, **T5}), tokenizer()),
    "mT5": lambda: (_new("MT5", {"vocab_size": VOCABULARY, **T5}, "EncoderModel"), tokenizer()),
    "UMT5": lambda: (_new("UMT5", {"vocab_size": VOCABULARY, **T5}, "EncoderModel"), tokenizer()),
    "LongT5": lambda: (_new("LongT5", {"vocab_size": VOCABULARY, **T5}, "EncoderModel"), tokenizer()),
    "ModernBERT": lambda: (
        _new("ModernBert", {**CLIP_TEXT, "cls_token_id": 2, "sep_token_id": 3}),
        tokenizer(),
    ),
    "Nomic BERT": lambda: (_new("NomicBert", TEXT), tokenizer()),
    "MobileBERT": lambda: (
        _new("MobileBert", {**TEXT, "embedding_size": 16, "intra_bottleneck_size": 16}),
        tokenizer(),
    ),
    "ConvBERT": lambda: (_new("ConvBert", {**TEXT, "embedding_size": 16}), tokenizer()),
    "Longformer": lambda: (_new("Longformer", {**ROBERTA, "attention_window": 8}), tokenizer(ROBERTA_TOKENS)),
    "BigBird": lambda: (_new("BigBird", {**TEXT, "pad_token_id": 0}), tokenizer()),
    "FNet": lambda: (
        _new("FNet", {key: value for key, value in TEXT.items() if key != "num_attention_heads"}),
        tokenizer(),
    ),
    "CANINE": lambda: (_new("Canine", {"num_hash_buckets": 64, **SIZE}), hf.CanineTokenizer()),
    "XLNet": lambda: (
        _new("XLNet", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 3, "n_head": 2, "d_inner": 48}),
        tokenizer(),
    ),
    "GPT-2": lambda: (
        _new("GPT2", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64}),
        tokenizer(pad=False),
    ),
    "Llama": lambda: (_new("Llama", {**TEXT, "num_key_value_heads": 2}), tokenizer(pad=False)),
    "Qwen3": lambda: (_new("Qwen3", {**TEXT, "num_key_value_heads": 2, "head_dim": 16}), tokenizer()),
    "BART": lambda: (_new("Bart", {"vocab_size": VOCABULARY, **_seq2seq()}), tokenizer()),
    "Whisper": lambda: (
        _new(
            "Whisper",
            {"vocab_size": VOCABULARY, **_seq2seq(), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
        ),
        tokenizer(),
    ),
}

BOTH_TOWERS: dict[str, Parts] = {
    "CLIP": lambda: (_both("CLIP", CLIP_TEXT, VIT, projection_dim=16), _shorter("CLIP"), tokenizer()),
    "SigLIP": lambda: (_both("Siglip", {**TEXT, "pad_token_id": 0}, VIT), _square("Siglip"), tokenizer()),
    "SigLIP 2": lambda: (
        _both("Siglip2", {**TEXT, "pad_token_id": 0}, {"patch_size": 8, "num_patches": 16, **SIZE}),
        hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16),
        tokenizer(),
    ),
    "Chinese-CLIP": lambda: (
        _both("ChineseCLIP", {**TEXT, "pad_token_id": 0}, VIT, projection_dim=16),
        _shorter("ChineseCLIP"),
        tokenizer(),
    ),
    "AltCLIP": lambda: (
        _both("AltCLIP", {**ROBERTA, "project_dim": 16}, VIT, projection_dim=16),
        _shorter("CLIP"),
        tokenizer(ROBERTA_TOKENS),
    ),
    "X-CLIP": lambda: (
        _both(
            "XCLIP",
            CLIP_TEXT,
            {
                **VIT,
                "mit_hidden_size": 32,
                "mit_intermediate_size": 48,
                "mit_num_hidden_layers": 1,
                "mit_num_attention_heads": 2,
            },
            projection_dim=32,
        ),
        _shorter("CLIP"),
        tokenizer(),
    ),
    "CLIPSeg": lambda: (_both("CLIPSeg", CLIP_TEXT, VIT, projection_dim=16), _shorter("CLIP"), tokenizer()),
    "ALIGN": lambda: (_both("Align", TEXT, EFFICIENT, projection_dim=32), _square("EfficientNet"), tokenizer()),
    "BLIP": lambda: (
        _both("Blip", {**TEXT, "encoder_hidden_size": 32}, VIT, projection_dim=16),
        _square("Blip"),
        tokenizer(),
    ),
    "OWL-ViT": lambda: (_both("OwlViT", CLIP_TEXT, VIT, projection_dim=16), _crop("OwlViT"), tokenizer()),
    "ViT and BERT as one": lambda: (
        hf.VisionTextDualEncoderModel(
            config=hf.VisionTextDualEncoderConfig.from_vision_text_configs(
                hf.ViTConfig(**VIT), hf.BertConfig(**TEXT), projection_dim=16
            )
        ),
        _square("ViT"),
        tokenizer(),
    ),
}


def _seq2seq() -> dict[str, Any]:
    sides = ("encoder", "decoder")
    each = {"layers": 2, "attention_heads": 2, "ffn_dim": 48}
    return {"d_model": 32, **{f"{side}_{name}": value for side in sides for name, value in each.items()}}


TOWERS = {**IMAGE_TOWERS, **TEXT_TOWERS, **BOTH_TOWERS}


def save_tower(name: str, folder: Path) -> Path:
    """Build the tower `name`, the same each time, and save it as a folder."""
    hf.utils.logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part in TOWERS[name]():
            for module in part.modules() if isinstance(part, torch.nn.Module) else ():
                # As small as their own first weights are, a row of convolutions puts out nothing but zeros.
                if isinstance(module, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(module.weight)
                elif isinstance(module, torch.nn.BatchNorm2d):
                    torch.nn.init.ones_(module.weight)
            part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny tower by its name in the lists above."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = save_tower(name, tmp_path_factory.mktemp("tower"))
        return made[name]

    return of
