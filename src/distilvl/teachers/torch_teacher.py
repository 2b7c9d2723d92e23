"""What all teachers that are PyTorch networks share: options, revision, and batches prepared while others run."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.io.prefetch import prefetched
from distilvl.io.specs import COUNT, Reader, Spec, choice
from distilvl.pictures import upright_rgb

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_REMEDY = "Write SPEC?device=cuda&dtype=bfloat16&batch_size=64, or leave any of the three out."


def _device(text: str) -> str:
    try:
        kind = torch.device(text).type
    except RuntimeError as error:
        raise DistilvlError(f"there is no device {text!r}.", "Name cpu, cuda, cuda:1 or mps.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise DistilvlError(f"the device {text!r} is asked for, but this machine has no CUDA.", "Leave it out.")
    return text


_OPTIONS = {"device": Reader(_device, "a device"), "dtype": choice(*_DTYPES), "batch_size": COUNT}


@dataclass(frozen=True)
class RunOptions:
    """Where and how a teacher runs; another dtype than the default is part of its revision."""

    device: str | None = None  # a PyTorch device; the GPU if there is one unless given
    dtype: str | None = None  # `float32`, `bfloat16` or `float16`; the teacher's own default unless given
    batch_size: int = 32  # items a forward pass

    @classmethod
    def of(cls, spec: Spec) -> RunOptions:
        """The options of a teacher's spec; `DistilvlError` for an unknown one, or a value it cannot have."""
        return cls(**spec.read(_OPTIONS, _REMEDY))

    @property
    def torch_device(self) -> torch.device:
        """The device asked for, or the best one at hand."""
        if self.device is not None:
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def torch_dtype(self, default: torch.dtype = torch.float32) -> torch.dtype:
        """PyTorch's name of `dtype`."""
        return default if self.dtype is None else _DTYPES[self.dtype]

    def revision(self, weights: str, default: str | None = "float32") -> str:
        """`weights`, a hash or a commit, with the dtype where it was chosen and is not the default."""
        return weights if self.dtype in (None, default) else f"{weights}-{self.dtype}"


DEFAULTS = RunOptions()


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


Item = TypeVar("Item")
Inputs = dict[str, Tensor]
Forward = Callable[[Inputs], Tensor]
# Decoded images are resized outside the interpreter's lock, so threads help; a tokenizer may serve only one.
_IMAGE_WORKERS = min(4, os.cpu_count() or 1)


class TorchTeacher(ABC):
    """A network with four steps that a subclass fills in; it offers the `Teacher` protocol.

    Args:
        network: the model; it is moved to the device and dtype of `options`, in evaluation mode.
        name, revision: the teacher's; hash or commit of its weights and preprocessing.
    """

    preprocessing: str

    def __init__(self, network: nn.Module, name: str, revision: str, options: RunOptions) -> None:
        self._device, self._dtype = options.torch_device, options.torch_dtype()
        self._batch_size = options.batch_size
        self._network = network.to(device=self._device, dtype=self._dtype).eval()
        self.name, self.revision = name, options.revision(revision)
        self.num_parameters = sum(parameter.numel() for parameter in network.parameters())
        self.dim = int(self._embeddings(["dim"], self.prepare_texts, self.text_features, 1).shape[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dim={self.dim}, device={str(self._device)!r})"

    @abstractmethod
    def prepare_images(self, images: Sequence[Image.Image]) -> Inputs:
        """The network's inputs for RGB images, on the CPU. Called from several threads."""

    @abstractmethod
    def prepare_texts(self, texts: Sequence[str]) -> Inputs:
        """The network's inputs for texts, on the CPU."""

    @abstractmethod
    def image_features(self, inputs: Inputs) -> Tensor:
        """Forward pass, shape (n, D); `inputs` are those of `prepare_images`, on the network's device."""

    @abstractmethod
    def text_features(self, inputs: Inputs) -> Tensor:
        """Forward pass, shape (n, D); `inputs` are those of `prepare_texts`, on the network's device."""

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Images to float32 embeddings, shape (n, D)."""

        def prepare(batch: Sequence[Image.Image]) -> Inputs:
            return self.prepare_images([upright_rgb(image, f"item {k}") for k, image in enumerate(batch)])

        return self._embeddings(list_of_images(images), prepare, self.image_features, _IMAGE_WORKERS)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts to float32 embeddings, shape (n, D)."""
        return self._embeddings(list_of_texts(texts), self.prepare_texts, self.text_features, 1)

    def to_device(self, inputs: Inputs) -> Inputs:
        """`inputs` where the network is, floating-point ones in its dtype."""
        moved = inputs.copy()
        for name, tensor in inputs.items():
            moved[name] = tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
        return moved

    def _embeddings(
        self, items: Sequence[Item], prepare: Callable[[Sequence[Item]], Inputs], forward: Forward, workers: int
    ) -> npt.NDArray[np.float32]:
        if not items:
            return np.zeros((0, self.dim), np.float32)
        size = self._batch_size
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        try:
            with torch.inference_mode():
                prepared = prefetched(prepare, batches, workers=workers, window=workers + 1)
                return np.concatenate([forward(self.to_device(inputs)).float().cpu().numpy() for inputs in prepared])
        except torch.OutOfMemoryError as error:
            remedy = f"Append ?batch_size={max(1, size // 2)} to the teacher, or &dtype=bfloat16."
            what = f"{self.name}: {self._device} has too little memory for batches of {size}."
            raise DistilvlError(what, remedy) from error
