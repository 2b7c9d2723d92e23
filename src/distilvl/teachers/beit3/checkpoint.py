"""Checkpoints of BEiT-3: read without running anything in them, and their sizes found from the tensors' shapes."""

from __future__ import annotations

import pickle
import zipfile
from argparse import Namespace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.teachers.beit3.network import FIRST_POSITION, HEAD_WIDTH, Beit3Config, Beit3Retrieval

_REMEDY = "Give a released checkpoint for retrieval (such as beit3_base_itc_patch16_224.pth), or one tuned from it."
_LAYER = "beit3.encoder.layers."
_IMAGE_POSITIONS = "beit3.encoder.embed_positions.A.weight"


def load_checkpoint(path: Path) -> Beit3Retrieval:
    """The model in `path`, in float32.

    Args:
        path: what `torch.save` wrote, with the weights under `model` (or `module`, as DeepSpeed does) or at the
            top; or a safetensors file.

    Raises:
        DistilvlError: it cannot be read, holds more than tensors and plain values, or is no BEiT-3 with heads for
            retrieval.
    """
    weights = _weights(path)
    config = _config(weights, path)
    with torch.device("meta"):
        network = Beit3Retrieval(config)
    wanted = network.state_dict()
    lacking = [name for name in wanted if name not in weights]
    if lacking:
        raise DistilvlError(f"{path} has no {lacking[0]} ({len(lacking)} of {len(wanted)} weights lack).", _REMEDY)
    # Heads of other tasks may lie beside those for retrieval; within the backbone nothing is left out.
    strange = [name for name in weights if name.startswith("beit3.") and name not in wanted]
    misfits = [name for name, tensor in wanted.items() if tensor.shape != weights[name].shape]
    if strange or misfits:
        raise DistilvlError(f"{path} is another BEiT-3 than the released ones: see {(strange + misfits)[0]}.", _REMEDY)
    network.load_state_dict({name: weights[name].float() for name in wanted}, assign=True)
    return network


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except OSError as error:
        raise DistilvlError(f"cannot read the checkpoint {path}: {error.strerror or error}.", _REMEDY) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError, ValueError) as error:
        raise DistilvlError(
            f"{path} is not a checkpoint of tensors and plain values: {' '.join(str(error).split())[:160]}.", _REMEDY
        ) from error
    for key in ("model", "module"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DistilvlError(f"{path} holds no named weights.", _REMEDY)
    return loaded


def _unpickled(path: Path) -> Any:
    # Fine-tuning keeps its command line, a Namespace, beside the weights; it is a plain record.
    with torch.serialization.safe_globals([Namespace]):
        # Mapped, so that an optimizer's state in the file costs no memory. Files older than zip cannot be.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _config(weights: dict[str, Tensor], path: Path) -> Beit3Config:
    try:
        vocabulary, width = weights["beit3.text_embed.weight"].shape
        patch_size = weights["beit3.vision_embed.proj.weight"].shape[-1]
        patches = len(weights[_IMAGE_POSITIONS]) - 1 - FIRST_POSITION
        text_positions = len(weights["beit3.encoder.embed_positions.B.weight"])
        hidden = len(weights[f"{_LAYER}0.ffn.A.fc1.weight"])
    except (KeyError, ValueError) as error:
        raise DistilvlError(f"{path} is not a BEiT-3 checkpoint: it has no {error}.", _REMEDY) from error
    layers = 1 + max(int(name[len(_LAYER) :].split(".")[0]) for name in weights if name.startswith(_LAYER))
    side = isqrt(max(patches, 0))
    if width % HEAD_WIDTH or side * side != patches:
        raise DistilvlError(f"{path}: a width of {width} and {patches} patches are no BEiT-3's.", _REMEDY)
    return Beit3Config(width, layers, hidden, side * patch_size, patch_size, vocabulary, text_positions)
