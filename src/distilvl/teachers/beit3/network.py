"""BEiT-3's Multiway transformer with the two heads for retrieval (Wang et al., CVPR 2023, arXiv 2208.10442).

The backbone is Magneto (arXiv 2210.06423), with LayerNorm before each sub-layer and inside it; every part of a layer is
there twice, `A` for images and `B` for text. Modules bear the names of the released checkpoints' keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Modality = Literal["image", "text"]

HEAD_WIDTH = 64  # of an attention head in all released models
FIRST_POSITION = 2  # both tables of positions start here; the rows before it go unused
_INITIAL_LOG_SCALE = 2.659260036932778  # ln(1 / 0.07)


@dataclass(frozen=True)
class Beit3Config:
    """Sizes of a model."""

    width: int  # of a token's state, a multiple of 64
    layers: int
    hidden: int  # width inside a feed-forward block
    image_size: int = 224  # pixels a side
    patch_size: int = 16
    vocabulary: int = 64010  # rows of the table of tokens
    text_positions: int = 1024  # rows of the text's table of positions


def base(image_size: int = 224) -> Beit3Config:
    """BEiT-3 base."""
    return Beit3Config(width=768, layers=12, hidden=3072, image_size=image_size)


def large(image_size: int = 224) -> Beit3Config:
    """BEiT-3 large."""
    return Beit3Config(width=1024, layers=24, hidden=4096, image_size=image_size)


class Beit3Retrieval(nn.Module):
    """Images and texts to L2-normalised embeddings, whose dimension D is the width of the model."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.config = config
        self.beit3: Any = nn.Module()
        self.beit3.text_embed = _Table(config.vocabulary, config.width)
        self.beit3.vision_embed = _PatchEmbedding(config)
        self.beit3.encoder = _Encoder(config)
        self.language_head = nn.Linear(config.width, config.width, bias=False)
        self.vision_head = nn.Linear(config.width, config.width, bias=False)
        # Only the loss of fine-tuning needs it; here it is for the checkpoint's sake.
        self.logit_scale = nn.Parameter(torch.tensor(_INITIAL_LOG_SCALE))

    def image_features(self, pixels: Tensor) -> Tensor:
        """Pixels in [-1, 1], shape (n, 3, S, S), to L2-normalised embeddings (n, D)."""
        state = self.beit3.encoder(self.beit3.vision_embed(pixels), "image")
        return F.normalize(self.vision_head(state), dim=-1)

    def text_features(self, tokens: Tensor, is_padding: Tensor) -> Tensor:
        """Token numbers, shape (n, L), and where they are padding, to L2-normalised embeddings (n, D)."""
        state = self.beit3.encoder(self.beit3.text_embed(tokens), "text", is_padding)
        return F.normalize(self.language_head(state), dim=-1)


class _Multiway(nn.Module):
    """One module for images (`A`) and one of the same kind for text (`B`)."""

    def __init__(self, image: Callable[[], nn.Module], text: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        self.A, self.B = image(), (text or image)()

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        return self.A(x) if modality == "image" else self.B(x)  # type: ignore[no-any-return]


class _PatchEmbedding(nn.Module):
    """(n, 3, S, S) pixels to (n, 1 + patches, width): a class token, then the patches row by row."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        # Of use in pretraining only; here it is for the checkpoint's sake.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.proj(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)


class _Table(nn.Embedding):
    """An embedding that starts at zero, as weights come from a checkpoint; random ones cost seconds of imports."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class _Positions(_Table):
    """The position's state for each of L tokens, shape (L, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[FIRST_POSITION : FIRST_POSITION + x.shape[1]]


class _Encoder(nn.Module):
    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        # A patch each, the class token, and the rows that go unused.
        rows = (config.image_size // config.patch_size) ** 2 + 1 + FIRST_POSITION
        self.embed_positions = _Multiway(
            lambda: _Positions(rows, config.width), lambda: _Positions(config.text_positions, config.width)
        )
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.layer_norm = _Multiway(lambda: nn.LayerNorm(config.width))

    def forward(self, x: Tensor, modality: Modality, is_padding: Tensor | None = None) -> Tensor:
        """(n, L, width) embeddings to the final state of the first token, (n, width)."""
        x = x + self.embed_positions(x, modality)
        # True where a key may be attended to; padding is seen by no one.
        attended = None if is_padding is None else ~is_padding[:, None, None, :]
        for layer in self.layers:
            x = layer(x, modality, attended)
        return self.layer_norm(x[:, 0], modality)  # type: ignore[no-any-return]


class _Layer(nn.Module):
    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.self_attn_layer_norm = _Multiway(lambda: nn.LayerNorm(config.width))
        self.self_attn = _Attention(config.width)
        self.final_layer_norm = _Multiway(lambda: nn.LayerNorm(config.width))
        self.ffn = _Multiway(lambda: _FeedForward(config))

    def forward(self, x: Tensor, modality: Modality, attended: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x, modality), modality, attended)
        return x + self.ffn(self.final_layer_norm(x, modality), modality)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Multi-head self-attention with a LayerNorm before its output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = _Multiway(lambda: nn.Linear(width, width))
        self.k_proj = _Multiway(lambda: nn.Linear(width, width))
        self.v_proj = _Multiway(lambda: nn.Linear(width, width))
        self.inner_attn_ln = _Multiway(lambda: nn.LayerNorm(width))
        self.out_proj = _Multiway(lambda: nn.Linear(width, width))

    def forward(self, x: Tensor, modality: Modality, attended: Tensor | None) -> Tensor:
        def heads(projection: Any) -> Tensor:
            states: Tensor = projection(x, modality)
            return states.view(*states.shape[:2], -1, HEAD_WIDTH).transpose(1, 2)

        query, key, value = heads(self.q_proj), heads(self.k_proj), heads(self.v_proj)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attended).transpose(1, 2).flatten(2)
        return self.out_proj(self.inner_attn_ln(mixed, modality), modality)  # type: ignore[no-any-return]


class _FeedForward(nn.Module):
    """Two linear maps with GELU and a LayerNorm between them."""

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.ffn_layernorm = nn.LayerNorm(config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]
