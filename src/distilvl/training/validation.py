"""Features and scores of a split during training: each image and each caption is encoded once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from distilvl.evaluation.score import Score, score
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.materials import Materials

Rows = npt.NDArray[np.float32]
_BATCH = 250


def score_student(fabric: Fabric, encoder: DualEncoder, split: Materials) -> Score:
    """Retrieval score of the student on `split`; leaves the student in the mode it was in."""
    images, texts = encode_split(fabric, encoder, split)
    return score(images, texts, split.caption_image)


def score_teacher(split: Materials) -> Score | None:
    """Retrieval score of the teacher's stored features of the same items."""
    if split.teacher is None:
        return None
    return score(split.teacher.images.float().numpy(), split.teacher.texts.float().numpy(), split.caption_image)


@torch.no_grad()
def encode_split(fabric: Fabric, encoder: DualEncoder, split: Materials) -> tuple[Rows, Rows]:
    """Student features of all images (n, D) and captions (m, D), float32."""
    was_training = encoder.training
    encoder.eval()
    image_blocks = []
    for start in range(0, len(split.pixels), _BATCH):
        pixels = torch.from_numpy(split.pixels[start : start + _BATCH]).to(fabric.device)
        with fabric.autocast():
            image_blocks.append(encoder.encode_images(pixels).float().cpu().numpy())
    # Captions of like length share a batch, so that little padding is computed.
    order = np.argsort([len(row) for row in split.tokens], kind="stable")
    texts: Rows | None = None
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        ids, mask = encoder.pad([split.tokens[row] for row in rows])
        with fabric.autocast():
            block = encoder.encode_texts(ids.to(fabric.device), mask.to(fabric.device)).float().cpu().numpy()
        if texts is None:
            texts = np.empty((len(order), block.shape[1]), dtype=np.float32)
        texts[rows] = block
    encoder.train(was_training)
    assert texts is not None  # a dataset has captions
    return np.concatenate(image_blocks), texts
