"""What tells one version of a teacher from another, so that features of two are never mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from distilvl.errors import DistilvlError

_DECIDING = (".safetensors", ".bin", ".json", ".txt", ".model")


def folder_hash(folder: Path) -> str:
    """Hash of all files of `folder` that decide a model's output: weights, configuration and vocabulary."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _DECIDING and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def weights_hash(weights: Mapping[str, Tensor], *more: bytes) -> str:
    """Hash of named tensors, in the order of their names, and of `more`; the file they came from plays no part."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    for part in more:
        digest.update(part)
    return digest.hexdigest()[:16]


def hub_commit(model_id: str) -> str:
    """The commit of the snapshot that was just loaded: the name of its folder in the hub's cache.

    Raises:
        DistilvlError: the cache does not hold the model.
    """
    from huggingface_hub import try_to_load_from_cache

    # Short ids such as `clip-ViT-B-32` stand for models of this organisation.
    for repository in (model_id, f"sentence-transformers/{model_id}"):
        for name in ("modules.json", "config.json"):
            cached = try_to_load_from_cache(repository, name) if repository.count("/") == 1 else None
            if isinstance(cached, str):
                return Path(cached).parent.name
    raise DistilvlError(
        f"the revision of {model_id} is unknown: it is not in the hub's cache.",
        "Save the model to a folder and give that folder.",
    )
