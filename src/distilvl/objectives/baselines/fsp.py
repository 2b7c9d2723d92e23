"""FSP, the flow between two layers (Yim et al., CVPR 2017, "A Gift from Knowledge Distillation", section 3)."""

from torch import Tensor

from distilvl.objectives.loss import Batch, Loss


class FlowDistillation(Loss):
    """FSP ("A Gift from Knowledge Distillation", section 3): the Gram matrix of image and text features.

        G(A, B) = 1/N A^T B            (D, D)
        L       = || G(z^v, z^t) - G(u^v, u^t) ||_F^2

    The two layers of the paper are the two modalities, its channels the D coordinates and its positions the N pairs.
    The *sum* over the D x D entries, as published. Nothing of the same image is to be masked, without negatives.

    >>> import torch
    >>> from distilvl.objectives.baselines import FlowDistillation
    >>> loss = FlowDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "fsp", "flow between the modalities (FSP)"
    formula = "norm( (1/N) Z_v^T Z_t - (1/N) U_v^T U_t )_F^2, summed over D x D entries"

    def forward(self, batch: Batch) -> Tensor:
        """L in [0, 4] for any D, 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        difference = z_image.T @ z_text - u_image.T @ u_text
        return (difference / len(batch.ids)).square().sum()
