"""A student is tried before it trains: whatever its towers cannot do is said in one line, before anything is computed.

Two pictures and a few short texts go through it. It is left as it was found, random numbers included.
"""

import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.processors import output_size
from distilvl.students.storage import MODALITIES, load_student, route, save_student
from distilvl.students.towers import first_line, model_type, own_config, quiet_transformers

logger = logging.getLogger("distilvl")

_TEXTS = ("a dog", "a picture of a dog beside a number of words")
_ALIKE = 1e-3  # of features of length 1: far above rounding, far below what a wrong input makes of them
_LONGEST = 100_000  # tokens; a tokenizer that allows more has no limit
_MOST_IDLE, _MANY_IDLE = 0.5, 0.1  # of a tower's weights: refused, and worth a word


def try_student(encoder: DualEncoder, *, reload: bool = True) -> None:
    """Encode, as in use: twice with the same bits, the longest text, one text beside others, saved and loaded again.

    The student is on the CPU; one that was just loaded needs no `reload`. `DistilvlError` says what a tower cannot do.
    """
    with _as_found(encoder), torch.no_grad():
        encoder.eval()
        embeddings = {"image": _try_images(encoder), "text": _try_texts(encoder)}
        if reload:
            _try_reload(encoder, embeddings)


def try_gradients(encoder: DualEncoder, precision: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
    """Take the gradients of a made-up loss, in training mode: `DistilvlError` if they do not reach towers that learn.

    Args:
        encoder: the student as it will train: on its device, its towers frozen or not.
        precision: gives the context within which training encodes.
    """
    with _as_found(encoder):
        encoder.train()
        for modality in MODALITIES:
            if modality not in encoder.frozen:
                with precision():
                    _try_gradients_of(encoder, modality)


def _try_images(encoder: DualEncoder) -> Tensor:
    tower = route(encoder.student, "image")[0]
    name = type(tower.processor).__name__.removesuffix("Pil")
    if output_size(tower.processor) is None:
        reason = f"its {name} makes inputs of different sizes, or something else than pictures"
        raise _refused(encoder, "image", reason, "Set student.image.size, or choose another tower.")
    pixels = torch.from_numpy(encoder.resize(_pictures()))
    embeddings = _twice(encoder, "image", (pixels,))
    expected = torch.as_tensor(tower.preprocess(_pictures())["pixel_values"]).float()
    # Training rounds to whole numbers after resizing.
    if not torch.allclose((pixels - encoder.mean) / encoder.std, expected, atol=0.1):
        reason = f"its {name} does more to pixels than resizing, cropping and one scale and shift a channel"
        remedy = "Correct its preprocessor_config.json, or choose another tower."
        raise _refused(encoder, "image", reason, remedy)
    return embeddings


def _try_texts(encoder: DualEncoder) -> Tensor:
    _try_longest(encoder)
    ids, mask = encoder.pad(encoder.tokenize(_TEXTS))
    embeddings = _twice(encoder, "text", (ids, mask))
    given = route(encoder.student, "text")[0].preprocess(list(_TEXTS))
    # A static tower is given all texts end to end instead of padded.
    expected = {"input_ids": ids[mask.bool()]} if encoder.text_is_static else {"input_ids": ids, "attention_mask": mask}
    if any(given[name].tolist() != tensor.tolist() for name, tensor in expected.items()):
        reason = "its tokenizer pads in front, or gives other tokens once it is saved and loaded"
        raise _refused(encoder, "text", reason, "Choose another tower, or correct its tokenizer_config.json.")
    means = any(getattr(module, "pooling_mode", None) == "mean" for module in route(encoder.student, "text"))
    pooling = "Choose another tower." if means else "Set student.text.pooling to mean."
    if not _alike(embeddings[:1], encoder.encode_texts(*encoder.pad(encoder.tokenize(_TEXTS[:1])))):
        raise _refused(encoder, "text", "what it makes of a text depends on the longer texts beside it", pooling)
    other = ids.clone()
    other[1, -2] = ids[0, 1]  # the last word is another one
    if not torch.equal(other, ids) and torch.equal(encoder.encode_texts(other, mask)[1], embeddings[1]):
        raise _refused(encoder, "text", "what it makes of a text does not depend on its last word", pooling)
    return embeddings


def _try_longest(encoder: DualEncoder) -> None:
    """A text of as many tokens as the student takes, cut from a longer one."""
    tower = route(encoder.student, "text")[0]
    if encoder.text_is_static:  # which has no positions
        return
    wanted = int(tower.tokenizer.model_max_length)
    if wanted > _LONGEST:
        return
    positions = getattr(own_config(tower.model.config, "text"), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < wanted:
        raise _too_long(encoder, wanted, positions)
    row = encoder.tokenize(["a dog " * wanted])[0]
    if len(row) > wanted:
        raise _refused(encoder, "text", f"its tokenizer does not cut at {wanted} tokens")
    error = _fault(encoder, row)
    if error is None:
        return
    runs, fails = 0, len(row)
    while fails - runs > 1:
        middle = (runs + fails) // 2
        runs, fails = (middle, fails) if _fault(encoder, row[:middle]) is None else (runs, middle)
    if runs:
        raise _too_long(encoder, wanted, runs) from error
    raise _refused(encoder, "text", f"it does not run: {first_line(error)}") from error


def _fault(encoder: DualEncoder, row: list[int]) -> Exception | None:
    try:
        encoder.encode_texts(*encoder.pad([row]))
    except Exception as error:  # beyond a table of positions anything is raised
        return error
    return None


def _try_reload(encoder: DualEncoder, expected: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "student")
        save_student(encoder.student, path)
        try:
            loaded = load_student(path, device="cpu")
        except DistilvlError as error:
            reason = str(error).partition("student folder: ")[2] or str(error)
            what = f"this student cannot be loaded again once it is saved: {reason}"
            raise DistilvlError(what, "Choose other towers.") from error
        items: dict[str, list[Any]] = {"image": _pictures(), "text": list(_TEXTS)}
        for modality in expected:
            embeddings = loaded.encode(items[modality], convert_to_tensor=True, show_progress_bar=False)
            if not _alike(expected[modality], embeddings):
                raise _refused(encoder, modality, "saved and loaded again it makes something else of the same items")


def _try_gradients_of(encoder: DualEncoder, modality: str) -> None:
    tower = route(encoder.student, modality)[0]
    weights = {name: weight for name, weight in tower.named_parameters() if weight.requires_grad}
    remedy = f"Set student.{modality}.frozen to true, or choose another tower."
    if not weights:
        raise _refused(encoder, modality, "none of its weights learns", remedy)
    try:
        embeddings = _encode(encoder, modality, _inputs(encoder, modality))
        # Any loss would do that an embedding's length alone does not decide.
        factors = torch.arange(embeddings.numel(), device=embeddings.device).view(embeddings.shape).cos()
        loss = (embeddings.float() * factors).sum()
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    except Exception as error:  # anything that a model raises in training only
        raise _refused(encoder, modality, f"it cannot be trained: {first_line(error)}", remedy) from error
    gradients = {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}
    if not any(gradient.count_nonzero() for gradient in gradients.values()):
        raise _refused(encoder, modality, "no gradient reaches its weights", remedy)
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            raise _refused(encoder, modality, f"the gradient of {name} is not finite", remedy)
    idle = [name for name in weights if name not in gradients]
    share = sum(weights[name].numel() for name in idle) / sum(weight.numel() for weight in weights.values())
    reason = f"{100 * share:.0f} % of its weights are never used, {idle[0]} among them" if idle else ""
    if share > _MOST_IDLE:
        raise _refused(encoder, modality, reason)
    if share > _MANY_IDLE:
        logger.warning("the %s tower: %s", modality, reason)


def _inputs(encoder: DualEncoder, modality: str) -> tuple[Tensor, ...]:
    # Normalising over a batch takes two items; elsewhere one costs half as much.
    batch = any(isinstance(module, _BatchNorm) for module in route(encoder.student, modality).modules())
    count = 2 if batch else 1
    inputs: tuple[Tensor, ...] = encoder.pad(encoder.tokenize(_TEXTS[-count:]))
    if modality == "image":
        inputs = (torch.from_numpy(encoder.resize(_pictures()[:count])),)
    return tuple(tensor.to(encoder.mean.device) for tensor in inputs)


def _twice(encoder: DualEncoder, modality: str, inputs: tuple[Tensor, ...]) -> Tensor:
    """The features of a batch, which must be the same the second time."""
    try:
        embeddings, again = (_encode(encoder, modality, inputs) for _ in range(2))
    except Exception as error:  # anything that a model raises
        raise _refused(encoder, modality, f"it does not run: {first_line(error)}") from error
    if not embeddings.isfinite().all():
        raise _refused(encoder, modality, "its features are not finite", "Its weights are damaged: copy it again.")
    if not torch.equal(embeddings, again):
        reason = "it makes something else of the same batch each time, as with random masks"
        raise _refused(encoder, modality, reason)
    return embeddings


def _encode(encoder: DualEncoder, modality: str, inputs: tuple[Tensor, ...]) -> Tensor:
    return encoder.encode_images(*inputs) if modality == "image" else encoder.encode_texts(*inputs)


def _alike(expected: Tensor, embeddings: Tensor) -> bool:
    return torch.allclose(expected, embeddings, rtol=_ALIKE, atol=_ALIKE * float(expected.abs().max()))


def _pictures() -> list[Image.Image]:
    """One wide, one tall, of noise."""
    noise, shapes = np.random.default_rng(0), ((40, 60, 3), (60, 40, 3))
    return [Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def _too_long(encoder: DualEncoder, wanted: int, most: int) -> DistilvlError:
    reason = f"student.text.max_length is {wanted}, but it has {most} positions"
    return _refused(encoder, "text", reason, f"Set student.text.max_length to {most} or less.")


def _refused(encoder: DualEncoder, modality: str, reason: str, remedy: str = "Choose another tower.") -> DistilvlError:
    name = model_type(route(encoder.student, modality)[0], modality)
    return DistilvlError(f"the {modality} tower (model_type {name}) cannot be used: {reason}.", remedy)


@contextmanager
def _as_found(encoder: DualEncoder) -> Iterator[None]:
    """Modes, running means and random numbers are put back afterwards; libraries are quiet meanwhile."""
    modes = {module: module.training for module in encoder.modules()}
    buffers = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = [encoder.mean.device] if encoder.mean.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), quiet_transformers():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            for name, buffer in encoder.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
            for module, training in modes.items():
                module.training = training
