"""`beit3:base:CHECKPOINT:VOCABULARY` or `beit3:FOLDER`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.teachers.beit3.checkpoint import load_checkpoint
from distilvl.teachers.beit3.network import Beit3Config, base, large
from distilvl.teachers.beit3.vocabulary import Vocabulary
from distilvl.teachers.options import DEFAULTS, RunOptions
from distilvl.teachers.revision import weights_hash
from distilvl.teachers.torch_teacher import Inputs, TorchTeacher

SIZES = {"base": base, "large": large}
_FORMS = "Write beit3:base:path/to/checkpoint.pth:path/to/beit3.spm, or beit3:FOLDER that holds one of each."


class Beit3Teacher(TorchTeacher):
    """BEiT-3 from a checkpoint and its vocabulary; rows have unit length.

    The image size is that of the checkpoint (224, 384 or 480 in the released ones). Images are resized to a square
    by bicubic interpolation and scaled to [-1, 1], as in the evaluation of the released models.

    Args:
        checkpoint: see `load_checkpoint`.
        vocabulary: the sentencepiece model.
        options: how to run it.

    Raises:
        DistilvlError: see `load_checkpoint` and `Vocabulary`.
    """

    def __init__(self, checkpoint: Path, vocabulary: Path, options: RunOptions = DEFAULTS) -> None:
        network = load_checkpoint(checkpoint)
        self.config = network.config
        self._model = network
        self._vocabulary = Vocabulary(vocabulary, self.config.vocabulary)
        side = self.config.image_size
        self.preprocessing = f"RGB, {side} x {side} bicubic, [-1, 1]; sentencepiece, 64 tokens"
        name = f"beit3-{size_of(self.config) or checkpoint.stem}-patch{self.config.patch_size}-{side}"
        super().__init__(network, name, weights_hash(network.state_dict(), vocabulary.read_bytes()), options)

    @classmethod
    def from_spec(cls, rest: str, options: RunOptions = DEFAULTS) -> Beit3Teacher:
        """The teacher that a spec names; `rest` is what follows `beit3:`.

        Raises:
            DistilvlError: another form, or a size that is not the checkpoint's; see also above.
        """
        if rest and Path(rest).is_dir():
            return cls(*_files_in(Path(rest)), options)
        parts = rest.split(":")
        if len(parts) != 3 or not all(parts):
            raise DistilvlError(f"'beit3:{rest}' names no BEiT-3.", _FORMS)
        if parts[0] not in SIZES:
            raise DistilvlError(f"BEiT-3 has no size {parts[0]!r}; it has {' and '.join(SIZES)}.", _FORMS)
        teacher = cls(Path(parts[1]), Path(parts[2]), options)
        if size_of(teacher.config) != parts[0]:
            found = size_of(teacher.config) or f"one of {teacher.config.layers} layers, {teacher.config.width} wide"
            raise DistilvlError(f"{parts[1]} is not BEiT-3 {parts[0]}, but {found}.", _FORMS)
        return teacher

    def prepare_images(self, images: Sequence[Image.Image]) -> Inputs:
        """Pixels in [-1, 1]."""
        side = (self.config.image_size, self.config.image_size)
        pixels = np.stack([np.asarray(image.resize(side, Image.Resampling.BICUBIC)) for image in images])
        return {"pixels": torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)}

    def prepare_texts(self, texts: Sequence[str]) -> Inputs:
        """Token numbers, and where they are padding."""
        tokens, is_padding = self._vocabulary.batch(texts)
        return {"tokens": tokens, "is_padding": is_padding}

    def image_features(self, inputs: Inputs) -> Tensor:
        """Unit rows, shape (n, D)."""
        return self._model.image_features(inputs["pixels"])

    def text_features(self, inputs: Inputs) -> Tensor:
        """Unit rows, shape (n, D)."""
        return self._model.text_features(inputs["tokens"], inputs["is_padding"])


def size_of(config: Beit3Config) -> str | None:
    """`base` or `large`, at any image size and vocabulary; None for another model."""
    for name, make in SIZES.items():
        size = make(config.image_size)
        if (config.width, config.layers, config.hidden) == (size.width, size.layers, size.hidden):
            return name
    return None


def _files_in(folder: Path) -> tuple[Path, Path]:
    checkpoints = sorted(path for path in folder.iterdir() if path.suffix in (".pth", ".pt", ".safetensors"))
    vocabularies = sorted(folder.glob("*.spm"))
    if len(checkpoints) != 1 or len(vocabularies) != 1:
        raise DistilvlError(
            f"{folder} holds {len(checkpoints)} checkpoints and {len(vocabularies)} vocabularies (*.spm).", _FORMS
        )
    return checkpoints[0], vocabularies[0]
