"""The student of a run: built, tried, and ready for what the configuration asks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric, seed_everything
from torch.nn.modules.batchnorm import _BatchNorm

from distilvl.config import Config, TrainingConfig
from distilvl.errors import DistilvlError
from distilvl.students import build_student, load_student
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.storage import MODALITIES, route
from distilvl.students.trial import try_gradients, try_student
from distilvl.training.distributed import rank_zero_first
from distilvl.training.materials import Materials, tokens_hash
from distilvl.training.stream import StreamSource


def make_ready(encoder: DualEncoder, config: TrainingConfig, processes: int) -> None:
    """Have `encoder`, its towers frozen or not, train as `config` says in so many processes.

    Raises:
        DistilvlError: a tower that cannot.
    """
    if config.batch_size < processes:
        raise DistilvlError(
            f"a batch of {config.batch_size} has no row for some of the {processes} processes.",
            "Raise training.batch_size: it is the batch of all processes together.",
        )
    if config.gradcache_chunks > 1:
        require_rows_apart(encoder, "training.gradcache_chunks")
    if processes > 1:
        require_rows_apart(encoder, "training in several processes")
        rest_idle_weights(encoder)
    if config.checkpoint_activations:
        checkpoint_activations(encoder)


def checkpoint_activations(encoder: DualEncoder) -> None:
    """Have the towers that learn keep the input of each block only, and compute the rest again in the backward pass.

    Gradients are the same, dropout included.

    Raises:
        DistilvlError: a tower that cannot do it.
    """
    for modality, tower in _learning_towers(encoder):
        if not tower.supports_gradient_checkpointing:
            raise DistilvlError(
                f"the {modality} tower ({tower.config.model_type}) cannot compute its activations again.",
                "Leave training.checkpoint_activations off; training.gradcache_chunks saves memory with any tower.",
            )
        # Releases of transformers differ in the name. The re-entrant variant does not go well with DDP.
        enable = getattr(tower, "activation_checkpointing_enable", tower.gradient_checkpointing_enable)
        enable({"use_reentrant": False})


def require_rows_apart(encoder: DualEncoder, wanted: str) -> None:
    """That what a tower makes of a row does not depend on the other rows, as batch normalisation does.

    Args:
        encoder: the student.
        wanted: what cuts the batch, for the message.

    Raises:
        DistilvlError: a tower that learns normalises over the batch.
    """
    for modality, tower in _learning_towers(encoder):
        if any(isinstance(module, _BatchNorm) for module in tower.modules()):
            raise DistilvlError(
                f"the {modality} tower ({tower.config.model_type}) normalises over the batch that {wanted} would cut.",
                f"Train in one process without training.gradcache_chunks, or set student.{modality}.frozen=true.",
            )


def rest_idle_weights(encoder: DualEncoder) -> None:
    """Switch gradients off for weights that no feature depends on (a mask token), for which DDP would wait in vain.

    They would have got no gradient anyway.
    """
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    height, width = encoder.image_size
    device = learning[0].device
    ids, mask = encoder.pad(encoder.tokenize(["a"]))
    was_training = encoder.training
    encoder.eval()
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
    z_image, z_text = encoder(image, ids.to(device), mask.to(device))
    encoder.train(was_training)
    for parameter, gradient in zip(
        learning, torch.autograd.grad(z_image.sum() + z_text.sum(), learning, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(gradient is not None)


def fingerprint(materials: Materials | StreamSource) -> str:
    """A hash of what a batch is drawn from: images' shape, owners of captions, token ids.

    Of a stream it is the numbers of records and the vocabulary.
    """
    if isinstance(materials, StreamSource):
        return materials.fingerprint()
    digest = hashlib.sha256(str(materials.images.shape).encode())
    digest.update(materials.caption_image.tobytes())
    digest.update(tokens_hash(materials.tokens).encode())
    return digest.hexdigest()


def require_same_data(stored: Mapping[str, str], now: Mapping[str, str]) -> None:
    """That a checkpoint's run goes on with the data that it began with.

    Args:
        stored: the checkpoint's fingerprints by what they are of; older ones have none and are not checked.
        now: likewise.

    Raises:
        DistilvlError: one that differs.
    """
    for name, fact in stored.items():
        if now.get(name) != fact:
            raise DistilvlError(
                f"the {name.replace('_', ' ')} changed since this run began: other images, captions or vocabulary.",
                "Choose another --out, or put the old data back and repeat the command.",
            )


def _learning_towers(encoder: DualEncoder) -> list[tuple[str, Any]]:
    """The transformers models that are not frozen, by modality."""
    return [(name, route(encoder.student, name)[0].model) for name in MODALITIES if name not in encoder.frozen]


DEFAULT_WIDTH = 256

_SOME_CAPTIONS = ("a dog",)


def ready_student(config: Config, width: int, captions: Collection[str], fabric: Fabric) -> DualEncoder:
    """The student on `fabric`'s device, its towers frozen or not; the random numbers are those after building it.

    Args:
        config: of the run.
        width: D.
        captions: of all that is learnt from; without effect on a student whose tokenizer is given.
        fabric: device, precision and processes.

    Raises:
        DistilvlError: a tower that cannot be loaded, or that cannot do what the run will ask of it.
    """
    seed_everything(config.training.seed, verbose=False)
    given = config.student.folder or config.student.text.model
    encoder = DualEncoder(build_student(config.student, width, () if given else captions))
    finished = config.student.folder is not None
    rank_zero_first(fabric, lambda: try_student(encoder, reload=not finished) if fabric.is_global_zero else None)
    encoder.to(fabric.device).freeze(*config.student.frozen)
    make_ready(encoder, config.training, fabric.world_size)
    try_gradients(encoder, fabric.autocast)
    return encoder


def try_towers(config: Config, fabric: Fabric) -> None:
    """Raise what `ready_student` would, before the teacher's width and the captions are known."""
    folder = config.student.folder
    width = load_student(folder).get_embedding_dimension() if folder else config.student.dim
    ready_student(config, width or DEFAULT_WIDTH, _SOME_CAPTIONS, fabric)
