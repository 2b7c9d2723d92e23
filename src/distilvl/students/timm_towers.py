"""Image towers of timm, by way of transformers' `TimmWrapperModel`: their preprocessing, and their feature maps."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from distilvl.errors import DistilvlError, one_line, require

TIMM_TYPE = "timm_wrapper"
_OTHER = "Choose another student.image.pooling or tower."
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # Pillow's numbers


def require_timm() -> Any:
    """The package; `DistilvlError` that tells how to install it."""
    return require("timm", extra="timm", why="an image tower of timm")


def preprocessing(config: Any) -> dict[str, Any]:
    """The fields of a plain image processor that does what timm does before the network of `config` in evaluation.

    From the `pretrained_cfg` that comes with the weights, or timm's own of this architecture: the shorter side to the
    input size over `crop_pct`, a centre crop (half of an odd margin is rounded otherwise, by one pixel), the mean and
    standard deviation. `DistilvlError` for other ways.
    """
    timm = require_timm()
    known = getattr(config, "pretrained_cfg", None)
    if not known:
        entry = timm.get_pretrained_cfg(config.architecture, allow_unregistered=True)
        known = entry.to_dict() if entry is not None else {}
    data = timm.data.resolve_data_config(pretrained_cfg=known, verbose=False)
    _, height, width = data["input_size"]
    resample, crop = _RESAMPLE.get(data["interpolation"]), data["crop_mode"]
    if resample is None or crop == "border" or (crop == "center" and height != width):
        how = f"crop_mode {crop}, interpolation {data['interpolation']}, input size {height} x {width}"
        what = f"the preprocessing of timm's {config.architecture} ({how}) has no plain image processor."
        raise DistilvlError(what, "Add a preprocessor_config.json to the tower's folder.")
    before = {"height": math.floor(height / data["crop_pct"]), "width": math.floor(width / data["crop_pct"])}
    return {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "do_center_crop": True, "do_rescale": True,
        "do_normalize": True, "size": before if crop == "squash" else {"shortest_edge": before["height"]},
        "crop_size": {"height": height, "width": width}, "resample": resample, "rescale_factor": 1 / 255,
        "image_mean": list(data["mean"]), "image_std": list(data["std"]),
    }  # fmt: skip


def stage_arguments(config: Any) -> tuple[dict[str, Any], list[int], list[int]]:
    """How timm makes the network of `config` as one that gives its feature maps.

    Returns: the arguments of `timm.create_model`; channels and reductions (input side over the map's) of all its maps,
    the finest first. Where blocks widen a map before they project it (EfficientNet, MobileNet V3 and V4), it is the
    wide one, which tells more. `DistilvlError` for a network without maps.
    """
    require_timm()
    from timm.models.efficientnet import EfficientNetFeatures
    from timm.models.mobilenetv3 import MobileNetV3Features

    arguments = {**(config.model_args or {}), "features_only": True}
    for name in ("out_indices", "feature_location"):
        arguments.pop(name, None)
    what = f"timm's {config.architecture} gives no feature maps of its stages"
    with _meant(what):
        network = _on_meta(config.architecture, **arguments)
        if isinstance(network, EfficientNetFeatures | MobileNetV3Features):
            arguments["feature_location"] = "expansion"
            # Without its stem, which has no wide map everywhere.
            network = _on_meta(config.architecture, **arguments, out_indices=[len(network.feature_info.channels()) - 1])
        maps = network.feature_info.info
    return arguments, [one["num_chs"] for one in maps], [one["reduction"] for one in maps]


def _on_meta(architecture: str, **arguments: Any) -> Any:
    """A network without weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return require_timm().create_model(architecture, **arguments)


@contextmanager
def _meant(what: str) -> Iterator[None]:
    """timm raises anything for what a network does not have."""
    try:
        yield
    except Exception as error:
        raise DistilvlError(f"{what}: {one_line(error)}.", _OTHER) from error


def stage_weights(network: Any, weights: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Those of a whole timm network's `weights` that belong to `network`, the same one made to give feature maps.

    timm names modules there as here, or `stages_1` for `stages.1`, or `model.x` for `x`. What only follows the last
    map is left out. `DistilvlError` for a weight that is not found.
    """
    found = {}
    for name, tensor in network.state_dict().items():
        whole = next((key for key in _whole_names(name) if key in weights), None)
        if whole is None or weights[whole].shape != tensor.shape:
            what = f"the weight {name} of timm's {architecture} is not found among those of the whole network."
            raise DistilvlError(what, _OTHER)
        found[name] = weights[whole]
    return found


def _whole_names(name: str) -> list[str]:
    first, dot, rest = name.partition(".")
    split = [k for k, letter in enumerate(first) if letter == "_"]
    return [name, *(f"{first[:k]}.{first[k + 1 :]}{dot}{rest}" for k in split), name.removeprefix("model.")]


@contextmanager
def fused(model: Any) -> Iterator[None]:
    """Within, a timm network in `model` has its parallel branches as one convolution (RepViT, FastViT, MobileOne).

    The outputs are the same but for rounding. Weights are trained, and saved, as branches.
    """
    holder = getattr(model, "backbone", model)
    network = getattr(holder, "timm_model", None)
    if network is None:
        yield
        return
    holder.timm_model = require_timm().utils.reparameterize_model(network.eval())
    try:
        yield
    finally:
        holder.timm_model = network
