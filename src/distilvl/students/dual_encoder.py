"""The student as training needs it: tensors in, embeddings out, without the per-call work of `encode`."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import pad_sequence

from distilvl.errors import DistilvlError
from distilvl.io.inputs import NotAListError, list_of_images, list_of_texts
from distilvl.pictures import upright_rgb
from distilvl.students.cut import Cut, TextCut, depthwise_kernels, layers_of, stop_learning
from distilvl.students.heads import Head, head_of, is_convolutional, keeps_statistics
from distilvl.students.processors import CONVERTS
from distilvl.students.static import token_ids
from distilvl.students.storage import MODALITIES, has_static_text, route
from distilvl.students.token_rows import Ids, TokenRows, mask_of
from distilvl.students.towers import model_type

_ORDER = ("image", "text")  # in which parameters are listed


_CAPTIONS_AT_A_TIME = 2_000


class DualEncoder(nn.Module):
    """Wraps a student, as `build_student` makes it; its parameters are the student's own."""

    mean: Tensor
    std: Tensor

    def __init__(self, student: SentenceTransformer) -> None:
        super().__init__()
        self.student = student
        self.frozen: frozenset[str] = frozenset()
        self.cut: Cut | None = None
        self.text_cut: TextCut | None = None
        self._above_cut: frozenset[str] = frozenset()  # weights of the image tower that stored outputs do not hang on
        self.image_dropout = 0.0
        processor = route(student, "image")[0].processor
        # Pixels stay uint8 until they are on the device; scale and shift are folded into one affine step.
        scale = 1 / processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0
        normalize = getattr(processor, "do_normalize", True)
        mean = _of_channels(processor.image_mean if normalize else 0.0)
        std = _of_channels(processor.image_std if normalize else 1.0)
        self.register_buffer("mean", (mean * scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", (std * scale).view(1, 3, 1, 1), persistent=False)

    def __repr__(self) -> str:
        towers = {modality: model_type(route(self.student, modality)[0]) for modality in MODALITIES}
        dim, device = self.student.get_embedding_dimension(), self.mean.device
        return f"DualEncoder(image={towers['image']}, text={towers['text']}, dim={dim}, device={str(device)!r})"

    @property
    def normalized(self) -> bool:
        """Whether embeddings are L2-normalised."""
        return len(self.student) > 1

    @property
    def text_is_static(self) -> bool:
        """Whether the text tower is a table of rows, `route(student, "text")[0].embedding.weight`, (V, r)."""
        return has_static_text(self.student)

    @property
    def preprocessing(self) -> str:
        """What `resize` does, as text: equal texts, equal pixels."""
        said = route(self.student, "image")[0].processor.to_dict()
        # Modes are settled before `resize`; students were saved without it once, whose pixels are the same.
        said.pop(CONVERTS, None)
        return json.dumps(said, indent=2, sort_keys=True, default=str) + "\n"

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what `resize` gives, pixels."""
        height, width = self.resize([Image.new("RGB", (8, 8))]).shape[2:]
        return height, width

    def freeze(self, *modalities: str) -> None:
        """From now on train the heads of these towers only: `pool_images` and `pool_texts` say all that they know."""
        self.frozen = frozenset(modalities)
        for modality in modalities:
            tower: Any = self.head(modality).tower.requires_grad_(False)
            if is_convolutional(tower):
                tower.to(memory_format=torch.channels_last)

    def cut_image_tower(self, layers: int, learning: int | None = None) -> None:
        """From now on train the last so many layers of the image tower, and its head: `store_images` says the rest.

        With `learning`, only so many of them learn. Depthwise kernels stay as they are.

        Raises:
            DistilvlError: it has no more layers than that, or cannot be cut there.
        """
        tower: Any = self.head("image").tower
        found = self._more_layers_than(layers, "image")
        pixels = torch.zeros(2, 3, *self.image_size, dtype=torch.uint8, device=self.mean.device)
        pixels[1, :, ::2] = 255
        self.cut = Cut(route(self.student, "image"), found[-layers][0], self._inputs("image", pixels, None))
        above = {id(parameter) for layer in found[-layers:] for parameter in layer}
        self._above_cut = frozenset(name for name, parameter in tower.named_parameters() if id(parameter) in above)
        stop_learning([*found[: -(learning or layers)], depthwise_kernels(tower)])

    def cut_text_tower(self, layers: int) -> None:
        """As `cut_image_tower`, of the text tower: `store_texts` says the rest."""
        if self.text_is_static:
            problem = (
                "student.text.trainable_layers is for a transformer, and the text tower is a table without layers."
            )
            raise DistilvlError(problem, "Leave it out.")
        found = self._more_layers_than(layers, "text")
        ids, mask = (
            part.to(self.mean.device) for part in self.pad(self.tokenize(["a dog", "two dogs run on a beach"]))
        )
        self.text_cut = TextCut(route(self.student, "text"), found[-layers][0], self._inputs("text", ids, mask))
        stop_learning(found[:-layers])

    def _more_layers_than(self, layers: int, modality: str) -> list[list[nn.Parameter]]:
        found = layers_of(self.head(modality).tower)
        if layers >= len(found):
            problem = (
                f"student.{modality}.trainable_layers is {layers}, and the {modality} tower has {len(found)} layers."
            )
            raise DistilvlError(problem, "Name fewer, or leave it out to train all of them.")
        return found

    @property
    def stores_images(self) -> bool:
        """Whether some or all of the image tower does not learn, and has its outputs computed once."""
        return self.cut is not None or "image" in self.frozen

    def store_images(self, pixels: Tensor) -> Tensor:
        """Pixels to what is computed once: rows (B, R) of `Cut.below`, or, of a frozen tower, x (B, C)."""
        if self.cut is None:
            return self.pool_images(pixels)
        return self.cut.below(self._image_inputs(pixels))

    def store_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What is computed once of texts whose tower is cut: (N, L, H)."""
        assert self.text_cut is not None  # `cut_text_tower` comes first
        return self.text_cut.below(self._inputs("text", input_ids, attention_mask))

    def train(self, mode: bool = True) -> "DualEncoder":
        """As of any module, but that timm's networks keep the statistics of their batch normalisation."""
        super().train(mode)
        for modality in MODALITIES:
            tower = self.head(modality).tower
            for module in tower.modules() if keeps_statistics(route(self.student, modality)[0]) else ():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def has_batch_statistics(self, modality: str) -> bool:
        """Whether in training mode an item's embedding depends on the others of its batch."""
        norms = any(isinstance(module, _BatchNorm) for module in self.head(modality).tower.modules())
        return norms and not keeps_statistics(route(self.student, modality)[0])

    def tower_fingerprint(self, modality: str, *, stored: bool = False) -> str:
        """A hash of the weights before the head; if `stored`, of those alone that make what `store_images` gives."""
        digest, left_out = hashlib.sha256(), self._above_cut if stored and modality == "image" else frozenset()
        for name, tensor in self.head(modality).tower.state_dict().items():
            if name in left_out:
                continue
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def forward(self, images: Tensor, texts: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """z^v (B, D) and z^t (N, D), L2-normalised unless the student is one without that.

        Args:
            images: (B, 3, H, W) uint8 pixels from `resize`, or (B, R) outputs of `store_images`.
            texts: (N, L) token ids from `pad`, or (N, L, H) outputs of `store_texts`, or (N, C) of `pool_texts`.
            attention_mask: (N, L), with token ids and outputs for each.
        """
        return self.encode_images(images), self.encode_texts(texts, attention_mask)

    def encode_images(self, images: Tensor) -> Tensor:
        """Pixels, or what `store_images` gives, to (B, D); see `forward`. Pictures are made pixels by `resize`."""
        return self._encoded("image", images)

    def encode_texts(self, texts: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids, or what was stored, to (N, D); see `forward`. `tokenize` and `pad` make ids of texts."""
        return self._encoded("text", texts, attention_mask)

    def _encoded(self, modality: str, items: Tensor, mask: Tensor | None = None) -> Tensor:
        if not isinstance(items, Tensor):
            what, by = ("pixels", "resize") if modality == "image" else ("token ids", "tokenize and pad")
            given = f"a {type(items).__name__} was given where {what} belong."
            raise NotAListError(given, f"Make them with {by}, or use encode.")
        if items.is_floating_point():
            x = self.pool_stored(modality, items, mask)
            if modality == "image":
                x = F.dropout(x, self.image_dropout, self.training)
            features = {"sentence_embedding": self.head(modality)(x)}
        elif modality == "text" and self.text_is_static:  # whose module takes no padding
            features = {"sentence_embedding": self.head(modality)(self._pool(modality, items, mask))}
        else:
            features = route(self.student, modality)(self._inputs(modality, items, mask))
        for module in list(self.student)[1:]:
            features = module(features)
        return features["sentence_embedding"]

    def pool_stored(self, modality: str, rows: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """x (B, C) of what was computed once by `store_images` or `store_texts`, or by `pool_texts`, as it is."""
        if modality == "text" and self.text_cut is not None and attention_mask is not None:
            return self.text_cut.above(rows, attention_mask)
        return rows if modality in (*self.frozen, "text") or self.cut is None else self.cut.above(rows)

    def pool_images(self, pixels: Tensor) -> Tensor:
        """What the image tower, without dropout, gives its head: (B, C)."""
        return self._pool("image", pixels)

    def pool_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the text tower, without dropout, gives its head: (N, C)."""
        return self._pool("text", input_ids, attention_mask)

    def _pool(self, modality: str, items: Tensor, mask: Tensor | None = None) -> Tensor:
        features = self._image_inputs(items) if modality == "image" else self._inputs(modality, items, mask)
        return self.head(modality).pool(features)

    def _image_inputs(self, pixels: Tensor) -> dict[str, Any]:
        features = self._inputs("image", pixels, None)
        if is_convolutional(self.head("image").tower):
            # Pixel after pixel, as convolutions compute, takes half the time.
            features["pixel_values"] = features["pixel_values"].contiguous(memory_format=torch.channels_last)
        return features

    def _inputs(self, modality: str, items: Tensor, mask: Tensor | None) -> dict[str, Any]:
        if modality == "image":
            return {"pixel_values": (items.float() - self.mean) / self.std, "modality": "image"}
        return {"input_ids": items, "attention_mask": mask, "modality": "text"}

    def head(self, modality: str) -> Head:
        """FC_v or FC_t itself."""
        return head_of(route(self.student, modality))

    def heads(self) -> list[nn.Parameter]:
        """The weights of FC_v and FC_t: everything behind the towers."""
        return [parameter for modality in _ORDER for parameter in self.head(modality).parameters()]

    @property
    def stage_widths(self) -> list[int]:
        """How many columns of `pool_images` belong to each stage, the finest first; one number for a plain tower."""
        return self.head("image").widths

    def tower_layers(self) -> list[list[list[nn.Parameter]]]:
        """The learning weights of each tower, layer by layer: embeddings, blocks; what follows is the last one's."""
        return [layers_of(self.head(modality).tower) for modality in _ORDER]

    def resize(self, images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
        """The processor's resizing and cropping alone: (n, 3, H, W) uint8."""
        pictures = [upright_rgb(image, f"item {k}") for k, image in enumerate(list_of_images(images))]
        # Numbers are left as bytes here and scaled on the device, by `encode_images`.
        plain = {"do_convert_rgb": False, "do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        out = route(self.student, "image")[0].processor(pictures, **plain)
        return np.clip(np.rint(out["pixel_values"]), 0, 255).astype(np.uint8)  # type: ignore[no-any-return]

    def tokenize(self, captions: Sequence[str]) -> list[list[int]]:
        """Token ids of each caption, special tokens included, cut to the tower's length."""
        tokenizer = route(self.student, "text")[0].tokenizer
        if self.text_is_static:
            return token_ids(tokenizer, list_of_texts(captions))
        return tokenizer(list_of_texts(captions), truncation=True, padding=False)["input_ids"]  # type: ignore[no-any-return]

    def tokenize_all(self, captions: Sequence[str]) -> TokenRows:
        """As `tokenize`, for the many of a split."""
        # What a tokenizer gives besides, offsets and masks of all captions, would be several times as large.
        starts = range(0, len(captions), _CAPTIONS_AT_A_TIME)
        return TokenRows(self.tokenize(captions[start : start + _CAPTIONS_AT_A_TIME]) for start in starts)

    def pad(self, rows: Sequence[Sequence[int] | Ids]) -> tuple[Tensor, Tensor]:
        """Token ids of n captions to (input_ids, attention_mask), both (n, longest) int64."""
        pad_id = getattr(route(self.student, "text")[0].tokenizer, "pad_token_id", None) or 0
        ids = pad_sequence([torch.as_tensor(row, dtype=torch.long) for row in rows], True, pad_id)
        return ids, mask_of([len(row) for row in rows])


def _of_channels(value: float | Sequence[float]) -> Tensor:
    """One number for each of red, green and blue; processors may have a single one for all."""
    return torch.tensor(value).expand(3)
