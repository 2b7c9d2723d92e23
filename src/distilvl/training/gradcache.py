"""A batch through the student and back: in one go or in chunks, in one process or in several, with the same result.

The losses compare all items of a batch, so what is cut is the encoding (GradCache: Gao et al., RepL4NLP 2021):

1. encode the items, chunk by chunk, without a graph;
2. compute the losses of the whole batch and their gradients G with respect to the embeddings z;
3. encode each chunk again, with a graph, and let its rows of G flow into the weights: the gradients of the whole batch.
"""

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor

from distilvl.training.distributed import gather_rows, share_of

RandomState = list[Tensor]


@dataclass
class _Chunk:
    """Items to encode; with their embeddings if they are encoded once, or else the random state to do it again."""

    images: Tensor
    texts: Tensor
    attention_mask: Tensor | None
    encoded: tuple[Tensor, Tensor] | None = None
    random: RandomState | None = None


class ChunkedEncoder:
    """Encodes this process's share of a batch, and takes the losses' gradients back to the student's weights.

    With one chunk the student runs once, graph and all. With more it runs twice, with the same dropout both times.
    There are fewer than `chunks` when the share has fewer images or texts. `model` is what `fabric.setup` returned.
    """

    def __init__(self, fabric: Fabric, model: _FabricModule, chunks: int = 1) -> None:
        self._fabric, self._model, self._chunks = fabric, model, chunks
        self._parts: list[_Chunk] = []
        self._embeddings: tuple[Tensor, Tensor] | None = None

    def encode(
        self, images: Tensor, texts: Tensor, attention_mask: Tensor | None, total: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """z^v (B, D) and z^t (N, D), `total` B and N, of the whole batch: leaves of a graph, from the share of it."""
        self._parts = self._cut(images, texts, attention_mask)
        encoded = [self._first(part) for part in self._parts]
        own = (torch.cat([rows.detach() for rows in column]) for column in zip(*encoded, strict=True))
        gathered = (gather_rows(self._fabric, rows, count) for rows, count in zip(own, total, strict=True))
        z_image, z_text = (rows.requires_grad_() for rows in gathered)
        self._embeddings = z_image, z_text
        return self._embeddings

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, a function of what `encode` returned, to `.grad` of all that it depends on.

        In N processes each sends its own items of G into the student; DDP takes the mean where the sum is wanted, hence
        the factor N. A loss's own weights get their whole gradient in every process and are not reduced.
        """
        assert self._embeddings is not None, "encode comes first"
        loss.backward()  # type: ignore[no-untyped-call]
        share, gradients = share_of(self._fabric), []
        for z in self._embeddings:
            gradient = torch.zeros_like(z) if z.grad is None else z.grad
            gradients.append(gradient[share.rows(len(z))] * share.processes)
        by_part = zip(*(rows.tensor_split(len(self._parts)) for rows in gradients), strict=True)
        after = random_state(self._fabric.device)
        for number, (part, rows) in enumerate(zip(self._parts, by_part, strict=True), start=1):
            # DDP waits for the others with the last chunk only, when the gradients of all chunks are there.
            with self._fabric.no_backward_sync(self._model, enabled=number < len(self._parts)):
                encoded = part.encoded or self._encode(part, part.random)
                # One scalar whose gradient with respect to the embeddings is G.
                pairs = zip(encoded, rows, strict=True)
                self._fabric.backward(torch.stack([(z * gradient).sum() for z, gradient in pairs]).sum())
            part.encoded = None
        set_random_state(after, self._fabric.device)
        self._parts, self._embeddings = [], None

    def _cut(self, images: Tensor, texts: Tensor, attention_mask: Tensor | None) -> list[_Chunk]:
        count = max(1, min(self._chunks, len(images), len(texts)))
        masks = [None] * count if attention_mask is None else attention_mask.tensor_split(count)
        parts = zip(images.tensor_split(count), texts.tensor_split(count), masks, strict=True)
        return [_Chunk(*part) for part in parts]

    def _first(self, part: _Chunk) -> tuple[Tensor, Tensor]:
        if len(self._parts) == 1:
            part.encoded = self._encode(part)
            return part.encoded
        part.random = random_state(self._fabric.device)
        with torch.no_grad():
            return self._encode(part)

    def _encode(self, part: _Chunk, random: RandomState | None = None) -> tuple[Tensor, Tensor]:
        if random is not None:
            set_random_state(random, self._fabric.device)
        count = len(part.images)
        # A batch may have fewer distinct images than there are processes. One without any encodes a blank one, since
        # towers take no empty batch and DDP waits for a gradient of every weight, and leaves it out.
        images = part.images if count else part.images.new_zeros((1, *part.images.shape[1:]))
        z_image, z_text = self._model(images, part.texts, part.attention_mask)
        return (z_image if count else z_image[:0]), z_text


def random_state(device: torch.device) -> RandomState:
    """State of the generators that dropout on `device` draws from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(states: RandomState, device: torch.device) -> None:
    """Go back to what `random_state` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
