"""InfoNCE on the pairs alone: the baseline that is trained without a teacher."""

from torch import Tensor

from distilvl.objectives.loss import Batch, TemperatureLoss, cross_entropy_of_pairs, own_and_negatives


class InfoNCE(TemperatureLoss):
    """Symmetric contrastive loss of student images and texts (CLIP, Radford et al. 2021, section 2.3); no teacher.

        L = 1/2 (mean_i -log softmax_j(z^v_i.z^t_j / tau)_i + mean_i -log softmax_j(z^t_i.z^v_j / tau)_i)

    where j runs over item i itself and those of other images; `temperature`, tau > 0, may be a `LearnedTemperature`.

    >>> import torch
    >>> from distilvl.objectives import InfoNCE
    >>> loss = InfoNCE(0.07)(torch.eye(4), torch.eye(4), torch.arange(4))
    """

    name, label = "infonce", "contrastive, without a teacher (InfoNCE)"
    formula = "half of: mean_i -log softmax_j(z^v_i.z^t_j/tau)_i + the same, without other rows of the own image"
    needs_teacher, learns_temperature = False, True

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0."""
        return self.of_tensors(batch.z_image, batch.z_text, batch.ids)

    def of_tensors(self, z_image: Tensor, z_text: Tensor, ids: Tensor) -> Tensor:
        """L from student embeddings (N, D) and image ids (N,)."""
        logits = own_and_negatives(z_image @ z_text.T / self.temperature, ids)
        return (cross_entropy_of_pairs(logits) + cross_entropy_of_pairs(logits.T)) / 2
