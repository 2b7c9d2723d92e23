"""Features and scores of a split during training: each image and each caption is encoded once.

In full precision, whatever training computes in, and on the ground truth of the data: the score is the one that
`distilvl eval` finds for the saved student.
"""

from __future__ import annotations

from lightning_fabric import Fabric

from distilvl.evaluation.score import Score, score
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.batch import Rows, over_rows, over_texts
from distilvl.training.materials import Materials


def score_student(fabric: Fabric, encoder: DualEncoder, split: Materials) -> Score:
    """Retrieval score of the student on `split`; leaves the student in the mode it was in."""
    images, texts = encode_split(fabric, encoder, split)
    return score(images, texts, split.caption_image, split.groups)


def score_teacher(split: Materials) -> Score | None:
    """Retrieval score of the teacher's stored features of the same items."""
    if split.teacher is None:
        return None
    images, texts = (rows.all().numpy() for rows in (split.teacher.images, split.teacher.texts))
    return score(images, texts, split.caption_image, split.groups)


def encode_split(fabric: Fabric, encoder: DualEncoder, split: Materials) -> tuple[Rows, Rows]:
    """Student features of all images (n, D) and captions (m, D), float32."""
    was_training = encoder.training
    encoder.eval()
    images = over_rows(fabric, encoder.encode_images, split.images, full=True)
    if split.pooled_texts is None:
        texts = over_texts(fabric, encoder, encoder.encode_texts, split.tokens, full=True)
    else:
        texts = over_rows(fabric, encoder.encode_texts, split.pooled_texts, full=True)
    encoder.train(was_training)
    return images, texts
