"""Pooling over stages: the head sees the means of the feature maps of several stages of a network, side by side.

    x = [mean(F_1), ..., mean(F_K)],   z = W x + b = sum_k W_k mean(F_k) + b

Since a mean and a linear map may be exchanged, this is the mean of a feature pyramid without non-linearities (Lin et
al., CVPR 2017), for which transformers has a model: EdgeTAM's vision encoder puts one 1x1 convolution W_k behind each
map, doubles the coarser sums by repeating pixels, which leaves their mean as it is, and adds. Hence such a student
runs in sentence-transformers without this package.
"""

from itertools import pairwise
from typing import Any

import torch
from transformers import EdgeTamVisionConfig, EdgeTamVisionModel, TimmWrapperConfig

from distilvl.errors import DistilvlError
from distilvl.students.timm_towers import stage_arguments, stage_weights
from distilvl.students.towers import loading

PYRAMID = ["fpn_hidden_states", 0]  # where the model puts out the sum at the finest of its maps
HEAD_WIDTH = "fpn_hidden_size"  # the entry of the model's configuration that is D
_DEFAULT = 2  # stages, the last ones


def staged(model: Any, stages: list[int] | None, dim: int, side: tuple[int, int]) -> EdgeTamVisionModel:
    """The network of `model` with a head of D = `dim` on the means of some of its stages.

    Args:
        model: a timm network, whole.
        stages: which ones, the finest is 0; none: the last two.
        dim: D.
        side: height and width of its inputs, pixels.

    Raises:
        DistilvlError: a network without maps, stages that it does not have or that lie apart, or inputs of a size at
            which a stage's map is not exactly twice as large as the next one's.
    """
    config = model.config
    arguments, channels, reductions = stage_arguments(config)
    chosen = _chosen(stages, reductions, config.architecture)
    _require_halves([reductions[stage] for stage in chosen], side)
    fields = {"architecture": config.architecture, "model_args": {**arguments, "out_indices": chosen}}
    backbone = TimmWrapperConfig.from_dict({**fields, "num_classes": 0, "label_names": []})
    coarsest_first = [channels[stage] for stage in reversed(chosen)]
    whole = EdgeTamVisionConfig(
        backbone_config=backbone, backbone_channel_list=coarsest_first, backbone_feature_sizes=[],
        fpn_hidden_size=dim, fpn_top_down_levels=list(range(len(chosen) - 1)), num_feature_levels=1,
    )  # fmt: skip
    with loading(f"timm's {config.architecture} gives no maps of the stages {chosen}", "Choose others."):
        made = EdgeTamVisionModel._from_config(whole, dtype=torch.float32)
    network = made.backbone.timm_model
    network.load_state_dict(stage_weights(network, model.timm_model.state_dict(), config.architecture))
    _require_maps(made, side, [channels[stage] for stage in chosen])
    return made  # type: ignore[no-any-return]


def all_stages(model: Any, most: int) -> list[int]:
    """The last `most` stages of a timm network, or as many of these as are neighbours; for `staged`."""
    _, _, reductions = stage_arguments(model.config)
    first = len(reductions) - 1
    while first > max(0, len(reductions) - most) and reductions[first] == 2 * reductions[first - 1]:
        first -= 1
    return list(range(first, len(reductions)))


def _chosen(stages: list[int] | None, reductions: list[int], architecture: str) -> list[int]:
    count = len(reductions)
    chosen = sorted(set(range(max(0, count - _DEFAULT), count) if stages is None else stages))
    wrong = [stage for stage in chosen if stage >= count]
    if wrong or (stages is not None and len(chosen) < len(stages)):
        what = f"stage {wrong[0]} is none of timm's {architecture}" if wrong else "a stage is named twice"
        sides = ", ".join(f"{stage} (1/{by} of the side)" for stage, by in enumerate(reductions))
        raise DistilvlError(f"student.image.stages: {what}.", f"Choose from {sides}.")
    if any(reductions[after] != 2 * reductions[before] for before, after in pairwise(chosen)):
        named = ", ".join(f"{stage} (1/{reductions[stage]})" for stage in chosen)
        what = f"student.image.stages {named}: each map must be half as large as the one before."
        raise DistilvlError(what, "Name neighbouring stages, such as the last two.")
    return chosen


def _require_halves(reductions: list[int], side: tuple[int, int]) -> None:
    """That no map is rounded up, so that each is exactly half of the one before."""
    by = reductions[-1] if len(reductions) > 1 else 1
    if any(length % by for length in side):
        near = max(by, round(side[0] / by) * by)
        what = f"inputs of {side[0]} x {side[1]} pixels: with pooling stages {by} must divide their sides."
        raise DistilvlError(what, f"Set student.image.size to {near}.")


@torch.no_grad()
def _require_maps(made: Any, side: tuple[int, int], channels: list[int]) -> None:
    """That the network does what timm says of it."""
    name = made.config.backbone_config.architecture
    with loading(f"timm's {name} does not run with inputs of {side[0]} x {side[1]} pixels", "Choose another size."):
        maps = made.eval().backbone(torch.zeros(1, 3, *side)).last_hidden_state
    shapes = [tuple(stage.shape[1:]) for stage in maps]
    halves = all(a == 2 * c and b == 2 * d for (_, a, b), (_, c, d) in pairwise(shapes))
    if [shape[0] for shape in shapes] != channels or not halves:
        what = f"the feature maps of timm's {name}, {shapes}, are not (channels, height, width), each half as large."
        raise DistilvlError(what, "Choose other student.image.stages, another size or tower.")
