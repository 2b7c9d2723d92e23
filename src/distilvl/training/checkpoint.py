"""Checkpoints: one safetensors file with everything that a bit-for-bit resume needs, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from distilvl.errors import DistilvlError
from distilvl.io.files import give_usual_modes, new_file


def save_tensors(tensors: dict[str, Tensor], metadata: dict[str, Any], path: Path) -> None:
    """Write `tensors` and JSON-able `metadata` to a temporary file, sync it, and rename it to `path`.

    Tied weights (T5's embeddings go by two names) are written once.

    Raises:
        DistilvlError: the disk refuses; what was at `path` before is untouched.
    """
    tied = _tied(tensors)
    kept = _apart({name: tensor for name, tensor in tensors.items() if name not in tied})
    told = {"json": json.dumps(metadata), **({"tied": json.dumps(tied)} if tied else {})}
    remedy = "Free space and run the same command again: it continues from the last whole checkpoint."
    with new_file(path, remedy) as partial:
        try:
            save_file(kept, partial, metadata=told)
        except SafetensorError as error:  # which is what it makes of a full disk
            raise OSError(str(error)) from error
        give_usual_modes(partial)


def _tied(tensors: dict[str, Tensor]) -> dict[str, str]:
    """The names that stand for the same memory in the same shape as an earlier one, with that one."""
    first: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name, tensor in tensors.items():
        view = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and first.setdefault(view, name) != name:
            tied[name] = first[view]
    return tied


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each in memory of its own, as a file takes them: parts of others are copied."""
    used: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in used else tensor
        used.add(memory)
    return apart


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `save_tensors` wrote; `DistilvlError` when it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            metadata, tied = json.loads(written["json"]), json.loads(written.get("tied", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {**tensors, **{name: tensors[other] for name, other in tied.items()}}, metadata
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DistilvlError(
            f"{path} is not a checkpoint of this program: {error}.", "Delete it to start the run anew."
        ) from error


def pack_state(modules: dict[str, nn.Module], optimizer: Optimizer) -> dict[str, Tensor]:
    """State of all modules (under their names), of the optimizer and of torch's random generators."""
    packed = {
        f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        packed.update({f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()})
    packed["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        packed["random.cuda"] = torch.cuda.get_rng_state()
    return packed


def unpack_state(packed: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: Optimizer) -> None:
    """Put what `pack_state` returned back into the same modules, optimizer and random generators, in place."""
    for name, module in modules.items():
        module.load_state_dict(under(packed, f"{name}."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in under(packed, "optimizer.").items():
        index, field = key.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(packed["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in packed:
        torch.cuda.set_rng_state(packed["random.cuda"])


def under(packed: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, named by the rest."""
    return {key[len(prefix) :]: tensor for key, tensor in packed.items() if key.startswith(prefix)}
