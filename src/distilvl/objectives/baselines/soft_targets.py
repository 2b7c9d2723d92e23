"""Distributions over the rows of a batch, and how far a student's are from a teacher's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """mean_i KL(softmax(teacher_i) || softmax(student_i)) of logits (N, M), 0-d and >= 0.

    Rows of the anchor's own image stay among the candidates: a soft target gives them the probability the
    teacher sees in them, so they are nobody's negatives by decree.
    """
    student, teacher = F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """mean_i -sum_j softmax(teacher_i)_j log softmax(student_i)_j of logits (N, M), 0-d.

    The divergence above plus the teacher's mean entropy, which no student changes.
    """
    return F.cross_entropy(student_logits, F.softmax(teacher_logits, dim=1))
