"""What a step works on: a batch on the device, each image once, and the pairs that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Teacher rows u^v and u^t (N, D), where known, and image ids (N,), one row a pair."""

    u_image: Tensor | None
    u_text: Tensor | None
    ids: Tensor


@dataclass(frozen=True)
class StepInputs:
    """A batch of B images and N texts on the device.

    In several processes, `images`, `texts` and `attention_mask` are the process's share of these rows only; the rest
    is the whole batch's in each of them.

    Attributes:
        images: (B, 3, H, W) uint8 pixels, or (B, width) rows of a frozen tower.
        texts: (N, L) token ids, or (N, width) rows of a frozen tower.
        attention_mask: (N, L) int64, with token ids.
        ids: row of each image in the training split, or of the first one with the same bytes, (B,).
        text_ids: what the texts belong to, (N,): rows of images for captions; numbers of their own without pairs.
        image_of: position of each caption's image, (N,); none when images and texts are no pairs.
        u_image, u_text: teacher rows (B, D) and (N, D), where known.
    """

    images: Tensor
    texts: Tensor
    attention_mask: Tensor | None
    ids: Tensor
    text_ids: Tensor
    image_of: Tensor | None
    u_image: Tensor | None
    u_text: Tensor | None

    @property
    def of_pairs(self) -> Pairs:
        """One row a pair: an image stands beside each of its captions."""
        if self.image_of is None:
            raise ValueError("images and texts of this batch are no pairs")
        u_image = None if self.u_image is None else self.u_image[self.image_of]
        return Pairs(u_image, self.u_text, self.text_ids)
