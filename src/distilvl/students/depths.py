"""Pooling over the depths of a ViT: the head sees the patches' states after several of its blocks, side by side.

    x = mean over patches of LayerNorm([h_1, ..., h_K]),   z = W x + b

transformers has a model that computes this and runs in sentence-transformers without this package: ViP-LLaVA's image
features (Cai et al., CVPR 2024), whose language model is reduced to a stub without layers. Its projector has two linear
maps; the first is the head, the second stays the identity.
"""

from typing import Any

import torch
from transformers import LlamaConfig, VipLlavaConfig, VipLlavaModel

from distilvl.errors import DistilvlError
from distilvl.students.towers import loading

_DEFAULT = 2  # blocks, the last ones
_REMEDY = "Name a ViT with a CLS token, such as DINOv2 or DeiT, or set student.image.pooling to mean, cls or pooler."


def joined_depths(model: Any, stages: list[int] | None, dim: int, side: tuple[int, int]) -> VipLlavaModel:
    """The ViT `model` with a head of D = `dim` on what several of its blocks put out.

    Args:
        model: a transformers model of patches and a CLS token, for inputs of `side`.
        stages: after which blocks, the first is 0; none: the last two.
        dim: D.
        side: height and width of its inputs, pixels.

    Raises:
        DistilvlError: a model of another kind, without a CLS token, or without these blocks.
    """
    config = model.config
    states = _states(model, side)
    blocks = len(states) - 1
    chosen = sorted(set(range(max(0, blocks - _DEFAULT), blocks) if stages is None else stages))
    wrong = [stage for stage in chosen if stage >= blocks]
    if wrong or (stages is not None and len(chosen) < len(stages)):
        what = f"stage {wrong[0]} is none of this {config.model_type}" if wrong else "a stage is named twice"
        raise DistilvlError(f"student.image.stages: {what}.", f"Its blocks are 0 to {blocks - 1}.")
    stub = LlamaConfig(
        vocab_size=1, hidden_size=dim, intermediate_size=1, num_hidden_layers=0, num_attention_heads=1,
        num_key_value_heads=1, head_dim=2, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    vision = type(config).from_dict(config.to_dict())
    if hasattr(vision, "pooler_output_size"):
        vision.pooler_output_size = 1  # ViT's own pooler is made, and never used
    whole = VipLlavaConfig(
        vision_config=vision, text_config=stub, projector_hidden_act="linear", image_token_index=0,
        vision_feature_layer=[stage + 1 for stage in chosen], image_seq_length=states[0].shape[1] - 1,
    )  # fmt: skip
    with loading(f"the image tower ({config.model_type}) cannot be pooled over stages", _REMEDY):
        made = VipLlavaModel._from_config(whole, dtype=torch.float32)
        weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pooler.")}
        own = {name: tensor for name, tensor in made.vision_tower.state_dict().items() if name.startswith("pooler.")}
        made.vision_tower.load_state_dict({**weights, **own})
    return made  # type: ignore[no-any-return]


@torch.no_grad()
def _states(model: Any, side: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """What the model puts out before and after each block: (1, 1 + patches, C) all of them."""
    name, patch = model.config.model_type, getattr(model.config, "patch_size", None)
    with loading(f"the image tower ({name}) cannot be pooled over stages", _REMEDY):
        states = model.eval()(torch.zeros(1, 3, *side), output_hidden_states=True).hidden_states
    tokens = {tuple(state.shape[1:]) for state in states or ()}
    if len(tokens) != 1 or states[0].ndim != 3 or not isinstance(patch, int):
        what = f"student.image.pooling stages takes networks of timm and ViTs, and the image tower is a {name}."
        raise DistilvlError(what, "Name its timm version, or set student.image.pooling to pooler or mean.")
    if states[0].shape[1] <= (side[0] // patch) * (side[1] // patch):
        raise DistilvlError(f"the image tower ({name}) has no CLS token, and would lose its first patch.", _REMEDY)
    return tuple(states)
