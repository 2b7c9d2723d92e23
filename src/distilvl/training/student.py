"""The student of a run: built, tried and set up as configured; and many items encoded with it."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric, seed_everything
from PIL import Image
from torch import Tensor

from distilvl.config import Config, TrainingConfig
from distilvl.data.pixels import Resize
from distilvl.errors import DistilvlError
from distilvl.students import build_student, load_student
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.frozen import ON_CPU, traced_store
from distilvl.students.stages import HEAD_WIDTH
from distilvl.students.storage import MODALITIES, route
from distilvl.students.token_rows import TokenOutputs, TokenRows
from distilvl.students.trial import try_gradients, try_student
from distilvl.training.distributed import dtype_of, rank_zero_first

DEFAULT_DIM = 256
Embeddings = npt.NDArray[np.float32]
EncodeTexts = Callable[[Tensor, Tensor], Tensor]
_BATCH = 250


def ready_student(
    config: Config, dim: int, captions: Collection[str], fabric: Fabric, cut_at: int | None = None
) -> DualEncoder:
    """The student of D = `dim` on `fabric`'s device, its towers frozen or not; random numbers go on from there.

    `captions` are all that is learnt from. `cut_at` is how many layers of the image tower lie above the stored outputs,
    of which fewer may learn, or none. `DistilvlError` for a tower that cannot be loaded, or do what the run needs.
    """
    seed_everything(config.training.seed, verbose=False)
    encoder, new = DualEncoder(build_student(config.student, dim, captions)), config.student.folder is None
    rank_zero_first(fabric, lambda: try_student(encoder, reload=new) if fabric.is_global_zero else None)
    encoder.to(fabric.device)
    layers = config.student.image.trainable_layers
    if layers is not None or (config.student.image.frozen and cut_at is not None):
        encoder.cut_image_tower(max(layers or 0, cut_at or 0), layers)
    if config.student.text_layers is not None:
        encoder.cut_text_tower(config.student.text_layers)
    encoder.freeze(*config.student.frozen)
    encoder.image_dropout = config.training.image_dropout
    make_ready(encoder, config.training, fabric.world_size)
    try_gradients(encoder, fabric.autocast)
    return encoder


def try_towers(config: Config, fabric: Fabric) -> None:
    """Raise what `ready_student` would, before the teacher's dimension and the captions are known."""
    folder = config.student.folder
    dim = load_student(folder).get_embedding_dimension() if folder else config.student.dim
    ready_student(config, dim or DEFAULT_DIM, ("a dog",), fabric)


def make_ready(encoder: DualEncoder, config: TrainingConfig, processes: int) -> None:
    """Have `encoder`, its towers frozen or not, train as `config` says in so many processes, if its towers can."""
    if config.batch_size < processes:
        remedy = "Raise training.batch_size: it is the batch of all processes together."
        raise DistilvlError(f"a batch of {config.batch_size} has no row for some of the {processes} processes.", remedy)
    if config.gradcache_chunks > 1:
        _require_rows_apart(encoder, "training.gradcache_chunks")
    if processes > 1:
        _require_rows_apart(encoder, "training in several processes")
        rest_idle_weights(encoder)
    if config.checkpoint_activations:
        _checkpoint_activations(encoder)


def _checkpoint_activations(encoder: DualEncoder) -> None:
    """Have the towers that learn keep each block's input only, and compute the rest again; gradients are the same."""
    for modality, tower in _learning_towers(encoder):
        if not tower.supports_gradient_checkpointing:
            problem = f"the {modality} tower ({tower.config.model_type}) cannot compute its activations again."
            remedy = "Leave training.checkpoint_activations off; training.gradcache_chunks saves memory with any tower."
            raise DistilvlError(problem, remedy)
        # Releases of transformers differ in the name. The re-entrant variant does not go well with DDP.
        enable = getattr(tower, "activation_checkpointing_enable", tower.gradient_checkpointing_enable)
        enable({"use_reentrant": False})


def _require_rows_apart(encoder: DualEncoder, wanted: str) -> None:
    """That a row's output does not depend on the other rows, as with batch normalisation: `wanted` cuts the batch."""
    for modality, tower in _learning_towers(encoder):
        if encoder.has_batch_statistics(modality):
            raise DistilvlError(
                f"the {modality} tower ({tower.config.model_type}) normalises over the batch that {wanted} would cut.",
                f"Train in one process without training.gradcache_chunks, or set student.{modality}.frozen=true.",
            )


def rest_idle_weights(encoder: DualEncoder) -> None:
    """Switch gradients off for weights that no embedding depends on (a mask token): DDP would wait for them in vain."""
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    device, was_training = learning[0].device, encoder.training
    ids, mask = encoder.pad(encoder.tokenize(["a"]))
    encoder.eval()
    image = torch.zeros(1, 3, *encoder.image_size, dtype=torch.uint8, device=device)
    z_image, z_text = encoder(image, ids.to(device), mask.to(device))
    encoder.train(was_training)
    gradients = torch.autograd.grad(z_image.sum() + z_text.sum(), learning, allow_unused=True)
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _learning_towers(encoder: DualEncoder) -> list[tuple[str, Any]]:
    """The transformers models that learn; a static tower, one mean of rows, has nothing that could be saved."""
    named = [(name, getattr(route(encoder.student, name)[0], "model", None)) for name in MODALITIES]
    return [(name, model) for name, model in named if model is not None and name not in encoder.frozen]


def tower_identity(encoder: DualEncoder, modality: str, *, stored: bool = False) -> str:
    """Weights of a tower and what it computes with them, down to the pooling: weights may be used in several ways.

    `stored` is as of `tower_fingerprint`.
    """
    before_head = route(encoder.student, modality)[:-1]
    model = getattr(before_head[0], "model", None)
    config = {} if model is None else json.loads(model.config.to_json_string())  # without the folder it came from
    config.pop(HEAD_WIDTH, None)  # students of several teachers have the same tower
    return f"{encoder.tower_fingerprint(modality, stored=stored)} {json.dumps(config, sort_keys=True)} {before_head}"


def store_of(encoder: DualEncoder, fabric: Fabric, *, mirror: bool, full: bool) -> Resize:
    """What a run keeps of pictures where the image tower, or its lower layers, do not learn, in the place of pixels.

    Gives (n, R) float32, computed in full precision if `full`, else in the run's; of lower layers float16 then. With
    `mirror`, (n, 2, R), the second of the mirror image. `DistilvlError` for outputs that float16 cannot hold.
    """
    store = (None if full else traced_store(encoder, dtype_of(fabric))) or encoder.store_images
    at_a_time = ON_CPU if fabric.device.type == "cpu" else _BATCH

    @torch.no_grad()
    def read(images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        pixels = torch.from_numpy(encoder.resize(images)).to(fabric.device)
        views = []
        for view in (pixels, pixels.flip(3)) if mirror else (pixels,):
            with nullcontext() if full else fabric.autocast():
                rows = torch.cat([store(part).float() for part in torch.split(view, at_a_time)])
            views.append(rows if full or encoder.cut is None else rows.half())
        if not all(bool(rows.isfinite().all()) for rows in views):
            what = "the image tower's lower layers give numbers that half precision cannot hold."
            raise DistilvlError(what, "Leave student.image.trainable_layers out to train the whole tower.")
        return (torch.stack(views, dim=1) if mirror else views[0]).cpu().numpy()

    return read


def tokens_hash(tokens: TokenRows) -> str:
    """Equal for equal rows."""
    return hashlib.sha256(tokens.lengths.tobytes() + bytes(tokens.ids.data)).hexdigest()


@torch.no_grad()
def store_texts_of(fabric: Fabric, encoder: DualEncoder, tokens: TokenRows, folder: Path | None = None) -> TokenOutputs:
    """`encoder.store_texts` of all texts, in memory or in a file in `folder`; texts of like length together."""
    assert encoder.text_cut is not None  # what is asked for here
    order, found = np.argsort(tokens.lengths, kind="stable"), TokenOutputs(tokens, encoder.text_cut.size, folder)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        ids, mask = encoder.pad([tokens[row] for row in rows])
        with fabric.autocast():
            outputs = encoder.store_texts(ids.to(fabric.device), mask.to(fabric.device))
        found.put(rows, outputs)
    return found


@torch.no_grad()
def encode_images_of(
    fabric: Fabric, encode: Callable[[Tensor], Tensor], rows: npt.NDArray[Any], *, full: bool = False
) -> Embeddings:
    """`encode`, in batches, of (n, ...) pixels or of a tower's outputs: (n, D), computed in float32 if `full`."""
    at_a_time = ON_CPU if fabric.device.type == "cpu" else _BATCH
    found: Embeddings | None = None  # one array from the start: many small ones between large ones scatter the memory
    for start in range(0, len(rows), at_a_time):
        block = torch.from_numpy(rows[start : start + at_a_time]).to(fabric.device)
        with nullcontext() if full else fabric.autocast():
            part = encode(block).float().cpu().numpy()
        found = np.empty((len(rows), part.shape[1]), dtype=np.float32) if found is None else found
        found[start : start + len(part)] = part
    assert found is not None  # a dataset has items
    return found


@torch.no_grad()
def encode_texts_of(
    fabric: Fabric, encoder: DualEncoder, encode: EncodeTexts, tokens: TokenRows, *, full: bool = False
) -> Embeddings:
    """`encode` of token ids, in batches of texts of like length, to pad little: (m, D) in the order of `tokens`."""
    order, blocks = np.argsort(tokens.lengths, kind="stable"), []
    for start in range(0, len(order), _BATCH):
        ids, mask = encoder.pad([tokens[row] for row in order[start : start + _BATCH]])
        with nullcontext() if full else fabric.autocast():
            blocks.append(encode(ids.to(fabric.device), mask.to(fabric.device)).float().cpu().numpy())
    found = np.empty((len(order), blocks[0].shape[1]), dtype=np.float32)  # a dataset has captions
    found[order] = np.concatenate(blocks)
    return found
