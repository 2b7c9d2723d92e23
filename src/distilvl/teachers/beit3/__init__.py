"""`beit3:base:CHECKPOINT:VOCABULARY` or `beit3:FOLDER`: the paper's teacher in plain PyTorch."""

from __future__ import annotations

import pickle
import zipfile
from argparse import Namespace
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distilvl.errors import DistilvlError, one_line, require
from distilvl.teachers.beit3.network import FIRST_POSITION, HEAD_WIDTH, Beit3Config, Beit3Retrieval, base, large
from distilvl.teachers.torch_teacher import DEFAULTS, Inputs, RunOptions, TorchTeacher, weights_hash

_REMEDY = "Give a released checkpoint for retrieval (such as beit3_base_itc_patch16_224.pth), or one tuned from it."
_LAYER = "beit3.encoder.layers."
_IMAGE_POSITIONS = "beit3.encoder.embed_positions.A.weight"


def load_checkpoint(path: Path) -> Beit3Retrieval:
    """The model in `path`, in float32; `DistilvlError` if it is no BEiT-3 with heads for retrieval.

    Args:
        path: a safetensors file, or what `torch.save` wrote: tensors and plain values, with the weights under `model`
            (or `module`, as DeepSpeed does) or at the top.
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
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            # Fine-tuning keeps its command line, a Namespace, beside the weights; it is a plain record.
            with torch.serialization.safe_globals([Namespace]):
                # Mapped, so that an optimizer's state in the file costs no memory. Files older than zip cannot be.
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise DistilvlError(f"cannot read the checkpoint {path}: {error.strerror or error}.", _REMEDY) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError, ValueError) as error:
        problem = f"{path} is not a checkpoint of tensors and plain values: {one_line(error, 160)}."
        raise DistilvlError(problem, _REMEDY) from error
    for key in ("model", "module"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DistilvlError(f"{path} holds no named weights.", _REMEDY)
    return loaded


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


BOS, PAD, EOS, UNKNOWN = 0, 1, 2, 3
MAX_LENGTH = 64  # tokens of a text, the first and the last one included
# Sentencepiece counts <unk>, <s>, </s> as 0, 1, 2 and its first piece as 3; the model has <s>, <pad>, </s>, <unk> and
# its first piece at 4.
_SHIFT = 1
_OWN_SPECIAL = ["<unk>", "<s>", "</s>"]


class Vocabulary:
    """Texts to token numbers; `DistilvlError` without sentencepiece, or for another vocabulary than the model's.

    Args:
        path: the sentencepiece model (`beit3.spm`).
        size: rows of the model's table of tokens.
    """

    def __init__(self, path: Path, size: int) -> None:
        sentencepiece = require("sentencepiece", extra="beit3", why="BEiT-3")
        remedy = "Give the released beit3.spm."
        if not path.is_file():
            raise DistilvlError(f"BEiT-3's vocabulary {path} does not exist.", remedy)
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise DistilvlError(f"{path} is not a sentencepiece model.", remedy) from error
        count = self._pieces.get_piece_size()
        special = [self._pieces.id_to_piece(k) for k in range(min(3, count))]
        if special != _OWN_SPECIAL or count + _SHIFT > size:
            what = f"{path} ({count:,} pieces, first {', '.join(special)})"
            raise DistilvlError(f"{what} is not the vocabulary of a model of {size:,} tokens.", remedy)

    def numbers(self, text: str) -> list[int]:
        """Token numbers of one text between BOS and EOS, cut to `MAX_LENGTH`."""
        pieces: list[int] = self._pieces.encode(text)
        shifted = [UNKNOWN if piece == 0 else piece + _SHIFT for piece in pieces[: MAX_LENGTH - 2]]
        return [BOS, *shifted, EOS]

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers, shape (n, L), padded to the longest text, and where they are padding."""
        rows = [torch.tensor(self.numbers(text)) for text in texts]
        tokens, lengths = pad_sequence(rows, True, PAD), torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(tokens.shape[1]) >= lengths[:, None]


SIZES = {"base": base, "large": large}
_FORMS = "Write beit3:base:path/to/checkpoint.pth:path/to/beit3.spm, or beit3:FOLDER that holds one of each."


class Beit3Teacher(TorchTeacher):
    """BEiT-3 from a checkpoint and its vocabulary; its embeddings are L2-normalised.

    The image size is that of the checkpoint (224, 384 or 480 in the released ones). Images are resized to a square
    by bicubic interpolation and scaled to [-1, 1], as in the evaluation of the released models. See `load_checkpoint`
    and `Vocabulary` for what is taken, and the errors.
    """

    def __init__(self, checkpoint: Path, vocabulary: Path, options: RunOptions = DEFAULTS) -> None:
        self._model = network = load_checkpoint(checkpoint)
        self.config = network.config
        self._vocabulary = Vocabulary(vocabulary, self.config.vocabulary)
        side = self.config.image_size
        self.preprocessing = f"RGB, {side} x {side} bicubic, [-1, 1]; sentencepiece, 64 tokens"
        name = f"beit3-{size_of(self.config) or checkpoint.stem}-patch{self.config.patch_size}-{side}"
        super().__init__(network, name, weights_hash(network.state_dict(), vocabulary.read_bytes()), options)

    @classmethod
    def from_spec(cls, rest: str, options: RunOptions = DEFAULTS) -> Beit3Teacher:
        """The teacher that a spec names; `rest` is what follows `beit3:`."""
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
        return dict(zip(("tokens", "is_padding"), self._vocabulary.batch(texts), strict=True))

    def image_features(self, inputs: Inputs) -> Tensor:
        """L2-normalised embeddings, shape (n, D)."""
        return self._model.image_features(inputs["pixels"])

    def text_features(self, inputs: Inputs) -> Tensor:
        """L2-normalised embeddings, shape (n, D)."""
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
        counts = f"{len(checkpoints)} checkpoints and {len(vocabularies)} vocabularies (*.spm)"
        raise DistilvlError(f"{folder} holds {counts}.", _FORMS)
    return checkpoints[0], vocabularies[0]
