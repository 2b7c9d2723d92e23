"""CRD, contrastive representation distillation (Tian, Krishnan, Isola, ICLR 2020, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import in_full_precision, same_image
from distilvl.objectives.queue import EMPTY, Negatives


class ContrastiveRepresentationDistillation(nn.Module):
    """Noise-contrastive estimation: tell a student row's own teacher row from other teacher rows, one by one.

    With s_ik = z_i.t_k / tau for teacher rows t, N negatives and M rows in the data:

        h(z, t) = e^s / (e^s + N/M)                               the paper
        h(z, t) = (e^s / Z) / (e^s / Z + N/M), Z = M mean(e^s)    the authors' code
        L       = mean_i [ -log h(z_i, u_i) - sum_k log(1 - h(z_i, q_k)) ]

    and the two modalities are summed by the caller. What differs here, and why:

    - The negatives are the queue's teacher rows instead of a draw from a memory bank of the whole data; those
      of the row's own image are left out, as the authors leave out the row's class, so N is counted by row.
    - Z. Bare unit rows need it: without it every negative at cosine 0 costs log(1 + M/N), a constant force that
      drives the student out of the teacher's cone. The authors measure Z in the first batch and keep it, on
      projections that are trained to suit it. Here the teacher's space is given, so the level that a student
      has to reach is known: Z/M is the mean of e^{u_i.q_k / tau} over the negatives of the batch. It is a
      constant but for sampling, has no gradient and needs no state. M cancels out:
      h = sigmoid(s - log(Z/M) - log N).
    - Only student rows are anchors. The authors' second half, with teacher rows as anchors against student
      rows, trains the teacher's projection, of which there is none.

    At z == u the negatives of a row have h of about 1/N each, so their sum stays about 1 for any N.

    Args:
        temperature: tau > 0.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    @in_full_precision
    def forward(self, z: Tensor, u: Tensor, queue: Negatives, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0; rows without any negative add exactly 0.

        Args:
            z: student rows (N, D) of one modality.
            u: their teacher rows (N, D).
            queue: teacher features (K, D) with image ids (K,); empty slots are never negatives.
            ids: image of each row, (N,).
        """
        keys, queue_ids = queue.features.to(z), queue.ids.to(ids.device)
        negative = ~same_image(ids, queue_ids) & (queue_ids != EMPTY)
        count = negative.sum(dim=1)
        offset = self._log_level(u, keys, negative) + count.clamp(min=1).to(z).log()
        own = F.logsigmoid((z * u).sum(dim=1) / self.temperature - offset)
        others = F.logsigmoid(offset[:, None] - z @ keys.T / self.temperature)
        by_row = own + others.masked_fill(~negative, 0).sum(dim=1)
        return -by_row.masked_fill(count == 0, 0).mean()

    @torch.no_grad()
    def _log_level(self, u: Tensor, keys: Tensor, negative: Tensor) -> Tensor:
        """log(Z/M): log of the mean of e^{u_i.q_k / tau} over all negatives of all rows; 0 if there are none."""
        if not negative.any():
            return u.new_zeros(())
        scores = (u @ keys.T / self.temperature).masked_fill(~negative, -torch.inf)
        return scores.logsumexp(dim=(0, 1)) - negative.sum().to(u).log()
