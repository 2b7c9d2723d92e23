"""Makes `torchscale_reference.json`: what torchscale's BEiT-3 answers to weights and inputs that a recipe makes.

Run it where torchscale 0.3.0 (with timm 0.6.13 and fairscale) is installed: `python torchscale_reference.py`. The tests
import the recipe from here and need none of these.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_suffix(".json")

WIDTH, LAYERS, HIDDEN, PATCH, VOCABULARY, TEXT_POSITIONS = 128, 2, 512, 16, 50, 80
IMAGE_SIZES = (32, 64)
TOKENS = [[0, 7, 41, 8, 19, 2, 1, 1], [0, 2, 1, 1, 1, 1, 1, 1], [0, 49, 4, 3, 30, 12, 13, 2]]
PAD = 1


def numbers(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-0.5, 0.5) that follow from `name`: the splitmix64 generator, the same everywhere."""
    seed = sum((k + 1) * ord(letter) for k, letter in enumerate(name))
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53 - 0.5


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The recipe's weight; those that scale after a LayerNorm lie around one."""
    values = torch.from_numpy(numbers(name, math.prod(shape))).reshape(shape) * 0.4
    is_scale = name.endswith(".weight") and ("norm" in name or "inner_attn_ln" in name)
    return (values + 1 if is_scale else values).float()


def pixels(image_size: int) -> Tensor:
    """Two images, shape (2, 3, S, S), in [-1, 1]."""
    values = numbers(f"pixels {image_size}", 2 * 3 * image_size**2) * 2
    return torch.from_numpy(values).reshape(2, 3, image_size, image_size).float()


def _reference(
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    image_size: int,
    vocabulary: int = 64010,
    text_positions: int = 1024,
) -> nn.Module:
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3

    # The settings of the released models.
    config = EncoderConfig(
        img_size=image_size,
        patch_size=PATCH,
        vocab_size=vocabulary,
        max_source_positions=text_positions,
        multiway=True,
        layernorm_embedding=False,
        normalize_output=True,
        no_output_layer=True,
        encoder_embed_dim=width,
        encoder_attention_heads=heads,
        encoder_ffn_embed_dim=hidden,
        encoder_layers=layers,
    )
    model = nn.Module()
    model.beit3 = BEiT3(config)
    model.language_head = nn.Linear(width, width, bias=False)
    model.vision_head = nn.Linear(width, width, bias=False)
    model.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    return model


@torch.inference_mode()
def _answers(image_size: int) -> dict[str, list[list[float]]]:
    model = _reference(WIDTH, LAYERS, WIDTH // 64, HIDDEN, image_size, VOCABULARY, TEXT_POSITIONS).eval()
    model.load_state_dict({name: weight(name, tuple(old.shape)) for name, old in model.state_dict().items()})
    tokens = torch.tensor(TOKENS)
    image = model.beit3(visual_tokens=pixels(image_size))["encoder_out"][:, 0]
    text = model.beit3(textual_tokens=tokens, text_padding_position=tokens == PAD)["encoder_out"][:, 0]
    rows = {"image": model.vision_head(image), "text": model.language_head(text)}
    return {
        name: [[round(float(x), 7) for x in row] for row in nn.functional.normalize(value, dim=-1)]
        for name, value in rows.items()
    }


def _sizes(width: int, layers: int, heads: int, image_size: int) -> dict[str, object]:
    with torch.device("meta"):
        model = _reference(width, layers, heads, 4 * width, image_size)
    shapes: dict[str, list[int]] = {}
    for name, value in model.state_dict().items():
        # All layers are alike; the first stands for them.
        if ".layers." not in name or ".layers.0." in name:
            shapes[name.replace(".layers.0.", ".layers.*.")] = list(value.shape)
    return {"layers": layers, "parameters": sum(p.numel() for p in model.parameters()), "shapes": shapes}


def main() -> None:
    table = {
        "torchscale": "0.3.0",
        "answers": {str(size): _answers(size) for size in IMAGE_SIZES},
        "models": {
            f"{name}-{size}": _sizes(*sizes, size)
            for name, sizes in {"base": (768, 12, 12), "large": (1024, 24, 16)}.items()
            for size in (224, 384, 480)
        },
    }
    lines = json.dumps(table, indent=1).replace("\n    ", " ").replace("\n   ]", " ]")
    FILE.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
