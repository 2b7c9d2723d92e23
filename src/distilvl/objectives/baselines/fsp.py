"""FSP, the flow between two layers (Yim et al., CVPR 2017, "A Gift from Knowledge Distillation", section 3)."""

from __future__ import annotations

from torch import Tensor

from distilvl.objectives.loss import Batch, Loss


class FlowDistillation(Loss):
    """The Gram matrix of image and text features, which the student is to share with the teacher.

    Yim et al. take the inner products of the channels of two feature maps, averaged over positions, as the flow
    from one layer to the next. Only the teacher's outputs are known here, so the two layers are the two
    modalities, the channels the D coordinates and the positions the N pairs of the batch:

        G(A, B) = 1/N A^T B            (D, D)
        L       = || G(z^v, z^t) - G(u^v, u^t) ||_F^2

    The *sum* over the D x D entries, as published. With L2-normalised embeddings ||G||_F <= 1, so L is in
    [0, 4] for any D; the mean over entries would be smaller by D^2, 6e5 at D = 768.

    The sum runs over own pairs only, without negatives, so nothing of the same image is to be masked.

    >>> import torch
    >>> from distilvl.objectives.baselines import FlowDistillation
    >>> loss = FlowDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "fsp", "flow between the modalities (FSP)"
    formula = "norm( (1/N) Z_v^T Z_t - (1/N) U_v^T U_t )_F^2, summed over D x D entries"

    def forward(self, batch: Batch) -> Tensor:
        """L in [0, 4], 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        difference = z_image.T @ z_text - u_image.T @ u_text
        return (difference / len(batch.ids)).square().sum()
