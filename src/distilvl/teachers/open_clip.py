"""Models of open_clip: `open_clip:MODEL/WEIGHTS` or `open_clip:hf-hub:ORG/NAME`. Needs the extra `open-clip`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.teachers.base import loading
from distilvl.teachers.torch_teacher import DEFAULTS, Inputs, RunOptions, TorchTeacher, weights_hash

_FORMS = (
    "Write open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:ViT-B-32/path/to/weights.safetensors or "
    "open_clip:hf-hub:ORG/NAME."
)


class OpenClipTeacher(TorchTeacher):
    """A model of open_clip with its own transform and tokenizer, which gives what `encode_image` and `encode_text` do.

    Args:
        model: open_clip's name of the architecture, or `hf-hub:ORG/NAME`.
        weights: name of pretrained weights, or a file of them; None for `hf-hub:`, which names its own.
    """

    preprocessing = "by open_clip's transform and tokenizer of the model"

    def __init__(self, model: str, weights: str | None, options: RunOptions = DEFAULTS) -> None:
        open_clip = _open_clip()
        with loading(f"open_clip cannot load {model!r} with weights {weights!r}", _FORMS):
            network, self._transform = open_clip.create_model_from_pretrained(model, pretrained=weights, device="cpu")
            self._tokenizer = open_clip.get_tokenizer(model)
        self._model = network
        # The transform is part of what the features depend on; its text names sizes, means and interpolation.
        revision = weights_hash(network.state_dict(), str(self._transform).encode())
        name = model.removeprefix("hf-hub:") if weights is None else f"{model}/{Path(weights).name}"
        super().__init__(network, name, revision, options)

    @classmethod
    def from_spec(cls, rest: str, options: RunOptions = DEFAULTS) -> OpenClipTeacher:
        """The teacher that a spec names; `rest` is what follows `open_clip:`."""
        if rest.startswith("hf-hub:"):
            return cls(rest, None, options)
        model, _, weights = rest.partition("/")
        if not model or not weights:
            raise DistilvlError(f"'open_clip:{rest}' names no model and weights.", _FORMS)
        return cls(model, weights, options)

    def prepare_images(self, images: Sequence[Image.Image]) -> Inputs:
        """Pixels, transformed one image at a time."""
        return {"pixels": torch.stack([self._transform(image) for image in images])}

    def prepare_texts(self, texts: Sequence[str]) -> Inputs:
        """Token numbers."""
        return {"tokens": self._tokenizer(list(texts))}

    def image_features(self, inputs: Inputs) -> Tensor:
        """Shape (n, D), not L2-normalised."""
        return self._model.encode_image(inputs["pixels"])  # type: ignore[no-any-return]

    def text_features(self, inputs: Inputs) -> Tensor:
        """Shape (n, D), not L2-normalised."""
        return self._model.encode_text(inputs["tokens"])  # type: ignore[no-any-return]


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    # A torchvision that does not fit the installed PyTorch fails with RuntimeError while it is imported.
    except (ImportError, RuntimeError) as error:
        remedy = 'Install it with a torchvision that fits your PyTorch: pip install "distilvl[open-clip]".'
        raise DistilvlError(f"open_clip cannot be imported: {' '.join(str(error).split())}.", remedy) from error
