"""SP, similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv 1907.09682, section 3)."""

from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss


class SimilarityPreserving(Loss):
    """SP: what is alike for the teacher is alike for the student, within a modality.

        G(x) = x x^T (N, N), each row L2-normalised
        L    = 1/N^2 ( ||G(z^v) - G(u^v)||_F^2 + ||G(z^t) - G(u^t)||_F^2 )

    A relation and not a negative: embeddings of one image need no mask. Says nothing of images against texts.

    >>> import torch
    >>> from distilvl.objectives.baselines import SimilarityPreserving
    >>> loss = SimilarityPreserving()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "sp", "similarities within a modality (SP)"
    formula = "per modality (1/N^2) norm( G(z) - G(u) )_F^2, G(x) = x x^T with L2-normalised rows"

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = (F.normalize(x @ x.T, dim=1) for x in batch.embeddings)
        return F.mse_loss(z_image, u_image) + F.mse_loss(z_text, u_text)
